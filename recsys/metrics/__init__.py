"""Metrics as pure functions of tensors: exact, in float64, and undefined with a reason where they have no value.

Functions that end in `_of` take sufficient statistics (`ScoreCounts`, `GroupedCounts`), which add up over files.
"""

from recsys.metrics.bootstrap import Bootstrap, Clusters, Statistic, cluster_bootstrap, difference
from recsys.metrics.calibration import IsotonicCalibration, PlattCalibration, fit_isotonic, fit_platt
from recsys.metrics.counterfactual import LoggedRows, PolicyValue, doubly_robust, inverse_propensity, self_normalized
from recsys.metrics.delong import AucComparison, auc_standard_error, auc_standard_error_of, compare_auc
from recsys.metrics.drift import StabilityIndex, population_stability_index
from recsys.metrics.grouped import GroupedAuc, GroupedCounts, GroupWeight, average_of_groups, gauc, gauc_of
from recsys.metrics.multiple_testing import benjamini_hochberg, holm
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
    roc_curve_of,
)
from recsys.metrics.reliability import (
    Binning,
    CalibrationError,
    ReliabilityBin,
    calibration_error,
    calibration_error_of,
    reliability_bins_of,
    wilson_interval,
)
from recsys.metrics.resampled import (
    resampled_average_precision,
    resampled_brier_score,
    resampled_calibration_error,
    resampled_calibration_ratio,
    resampled_gain,
    resampled_gauc,
    resampled_kolmogorov_smirnov,
    resampled_log_loss,
    resampled_normalized_entropy,
    resampled_relative_information_gain,
    resampled_sums,
)
from recsys.metrics.score_counts import ScoreCounts
from recsys.metrics.value import MetricValue

__all__ = [
    "AucComparison",
    "Binning",
    "Bootstrap",
    "CalibrationError",
    "Clusters",
    "GroupWeight",
    "GroupedAuc",
    "GroupedCounts",
    "IsotonicCalibration",
    "LoggedRows",
    "MetricValue",
    "PlattCalibration",
    "PolicyValue",
    "ReliabilityBin",
    "ScoreCounts",
    "StabilityIndex",
    "Statistic",
    "auc",
    "auc_of",
    "auc_standard_error",
    "auc_standard_error_of",
    "average_of_groups",
    "average_precision_of",
    "benjamini_hochberg",
    "brier_score",
    "brier_score_of",
    "calibration_error",
    "calibration_error_of",
    "calibration_ratio",
    "calibration_ratio_of",
    "cluster_bootstrap",
    "compare_auc",
    "difference",
    "doubly_robust",
    "fit_isotonic",
    "fit_platt",
    "gain_curve_of",
    "gain_of",
    "gauc",
    "gauc_of",
    "holm",
    "inverse_propensity",
    "kolmogorov_smirnov_of",
    "lift_of",
    "log_loss",
    "log_loss_of",
    "normalized_entropy",
    "normalized_entropy_of",
    "population_stability_index",
    "relative_information_gain",
    "relative_information_gain_of",
    "reliability_bins_of",
    "resampled_average_precision",
    "resampled_brier_score",
    "resampled_calibration_error",
    "resampled_calibration_ratio",
    "resampled_gain",
    "resampled_gauc",
    "resampled_kolmogorov_smirnov",
    "resampled_log_loss",
    "resampled_normalized_entropy",
    "resampled_relative_information_gain",
    "resampled_sums",
    "roc_curve_of",
    "self_normalized",
    "wilson_interval",
]
