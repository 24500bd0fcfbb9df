"""Metrics as pure functions of tensors: exact, in float64, and undefined with a reason where they have no value.

Functions that end in `_of` take sufficient statistics (`ScoreCounts`, `GroupedCounts`), which add up over files.
"""

from recsys.metrics.delong import AucComparison, auc_standard_error, auc_standard_error_of, compare_auc
from recsys.metrics.grouped import GroupedAuc, GroupedCounts, GroupWeight, gauc, gauc_of
from recsys.metrics.probability import (
    brier_score,
    brier_score_of,
    calibration_ratio,
    calibration_ratio_of,
    log_loss,
    log_loss_of,
    normalized_entropy,
    normalized_entropy_of,
    relative_information_gain,
    relative_information_gain_of,
)
from recsys.metrics.ranking import (
    auc,
    auc_of,
    average_precision_of,
    gain_curve_of,
    gain_of,
    kolmogorov_smirnov_of,
    lift_of,
    roc_curve,
    roc_curve_of,
)
from recsys.metrics.reliability import (
    Binning,
    CalibrationError,
    ReliabilityBin,
    calibration_error,
    calibration_error_of,
    equal_mass_bins,
    reliability_bins,
    reliability_bins_of,
    wilson_interval,
)
from recsys.metrics.score_counts import ScoreCounts
from recsys.metrics.value import MetricValue

__all__ = [
    "AucComparison",
    "Binning",
    "CalibrationError",
    "GroupWeight",
    "GroupedAuc",
    "GroupedCounts",
    "MetricValue",
    "ReliabilityBin",
    "ScoreCounts",
    "auc",
    "auc_of",
    "auc_standard_error",
    "auc_standard_error_of",
    "average_precision_of",
    "brier_score",
    "brier_score_of",
    "calibration_error",
    "calibration_error_of",
    "calibration_ratio",
    "calibration_ratio_of",
    "compare_auc",
    "equal_mass_bins",
    "gain_curve_of",
    "gain_of",
    "gauc",
    "gauc_of",
    "kolmogorov_smirnov_of",
    "lift_of",
    "log_loss",
    "log_loss_of",
    "normalized_entropy",
    "normalized_entropy_of",
    "relative_information_gain",
    "relative_information_gain_of",
    "reliability_bins",
    "reliability_bins_of",
    "roc_curve",
    "roc_curve_of",
    "wilson_interval",
]
