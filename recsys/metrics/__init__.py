"""Metrics as pure functions of tensors: exact, in float64, and undefined with a reason where they have no value."""

from recsys.metrics.probability import calibration_ratio, log_loss, normalized_entropy
from recsys.metrics.ranking import GroupedAuc, auc, auc_standard_error, gauc, roc_curve
from recsys.metrics.reliability import ReliabilityBin, equal_mass_bins, reliability_bins, wilson_interval
from recsys.metrics.value import MetricValue

__all__ = [
    "GroupedAuc",
    "MetricValue",
    "ReliabilityBin",
    "auc",
    "auc_standard_error",
    "calibration_ratio",
    "equal_mass_bins",
    "gauc",
    "log_loss",
    "normalized_entropy",
    "reliability_bins",
    "roc_curve",
    "wilson_interval",
]
