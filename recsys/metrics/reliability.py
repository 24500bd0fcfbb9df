"""Calibration by bins: the reliability curve, and the expected calibration error.

Functions that end in `_of` take `ScoreCounts` of probabilities, which add up over files.
"""

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from recsys.core.errors import ConfigError, DataError
from recsys.metrics.checks import check_probabilities, one_class_reason
from recsys.metrics.score_counts import ScoreCounts
from recsys.metrics.value import MetricValue

WILSON_Z = 1.959963984540054
"""Standard normal quantile of a two-sided 95% interval."""


class Binning(Enum):
    """How rows are put into bins by their probability."""

    EQUAL_WIDTH = "equal_width"  # [k / B, (k + 1) / B), and 1 in the last
    EQUAL_MASS = "equal_mass"  # about equally many rows, equal predictions together


@dataclass(frozen=True, kw_only=True)
class CalibrationError:
    """An expected calibration error and the bins that it is of: without them, the number says nothing."""

    error: MetricValue
    binning: Binning
    num_bins: int  # asked for
    num_bins_used: int  # with a row in them


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """One bin: its rows, what they were predicted, and what share was positive, with a 95% Wilson interval."""

    count: int
    min_prediction: float
    max_prediction: float
    mean_prediction: float
    observed_rate: float
    observed_low: float
    observed_high: float


def reliability_bins_of(counts: ScoreCounts, *, num_bins: int) -> list[ReliabilityBin]:
    """Split rows by predicted probability into about `num_bins` bins of equally many rows.

    Equal predictions always share a bin, whatever the order of rows, so there may be fewer bins and unequal counts.

    Args:
        counts: of probabilities.
        num_bins: >= 1.
    Returns:
        Non-empty bins, ascending in prediction; none without rows.
    Raises:
        ConfigError: num_bins < 1.
        DataError: a score is no probability; or rows are weighted: an interval needs to know how many were seen.
        ConfigError: num_bins < 1.
    """
    if counts.weighted:
        raise DataError("a reliability curve's intervals need whole rows, these are weighted. Drop the weights.")
    bins = calibration_bins(counts, num_bins, Binning.EQUAL_MASS)
    ends = torch.bincount(bins, minlength=num_bins).cumsum(0).tolist()
    return [_bin(counts, slice(start, end)) for start, end in zip([0, *ends[:-1]], ends, strict=True) if end > start]


def calibration_error(
    labels: Tensor, probabilities: Tensor, weights: Tensor | None = None, *, num_bins: int, binning: Binning
) -> CalibrationError:
    """Mean gap between predicted and observed rate of a bin, weighted by rows (ECE).

    Noise alone makes it larger than 0, the more so the more bins: compare it only at equal bins and rows.

    Args:
        labels: (N,), any dtype, each 0 or 1.
        probabilities: (N,), each in [0, 1]; of the positive class, not of the likelier one.
        weights: (N,), finite and 0 or more: how many rows each stands for; without, each for itself.
        num_bins: >= 1.
        binning: of equal width is the usual form; of equal mass sees more where predictions are close together.
    Returns:
        Undefined without rows.
    Raises:
        DataError: shapes differ, a label is neither 0 nor 1, a probability is none, or a weight is impossible.
        ConfigError: num_bins < 1.
    Source: Naeini et al., AAAI 2015, "Obtaining well calibrated probabilities using Bayesian binning".
    """
    return calibration_error_of(
        ScoreCounts.from_rows(labels, probabilities, weights), num_bins=num_bins, binning=binning
    )


def calibration_error_of(counts: ScoreCounts, *, num_bins: int, binning: Binning) -> CalibrationError:
    """`calibration_error` of the rows behind `counts`, whose scores are probabilities."""
    bins, total = calibration_bins(counts, num_bins, binning), counts.num_rows
    rows = counts.positives + counts.negatives
    # A bin's rows times the gap of its rates: what is predicted in sum less what is observed.
    gaps = torch.zeros(num_bins, dtype=torch.float64, device=bins.device)
    gaps.index_add_(0, bins, counts.scores.double() * rows - counts.positives)
    error = MetricValue.undefined(one_class_reason(0, total))
    if total > 0:
        error = MetricValue.of(float(gaps.abs().sum()) / total)
    return CalibrationError(error=error, binning=binning, num_bins=num_bins, num_bins_used=torch.unique(bins).numel())


def wilson_interval(num_positives: int, num_rows: int) -> tuple[float, float]:
    """95% interval of a rate: (low, high) within [0, 1]; unlike the normal one it is sound near 0 and for few rows.

    Args:
        num_positives, num_rows: of independent rows, num_rows >= 1.
    Source: Wilson, 1927, "Probable inference, the law of succession, and statistical inference".
    """
    rate, z_squared = num_positives / num_rows, WILSON_Z**2
    scale = 1 + z_squared / num_rows
    centre = (rate + z_squared / (2 * num_rows)) / scale
    half = WILSON_Z / scale * math.sqrt(rate * (1 - rate) / num_rows + z_squared / (4 * num_rows**2))
    # The interval holds the rate itself; rounding must not say otherwise at 0 and 1.
    return min(max(centre - half, 0.0), rate), max(min(centre + half, 1.0), rate)


def calibration_bins(counts: ScoreCounts, num_bins: int, binning: Binning) -> Tensor:
    """Bin of each distinct probability, int64 (S,), ascending within [0, num_bins).

    Raises:
        DataError: a score is no probability. ConfigError: num_bins < 1.
    """
    if num_bins < 1:
        raise ConfigError(f"num_bins={num_bins}: calibration needs one bin or more; 20 is usual.")
    check_probabilities(counts.scores)
    if binning is Binning.EQUAL_WIDTH:
        inner = torch.arange(1, num_bins, dtype=torch.float64, device=counts.scores.device) / num_bins
        return torch.bucketize(counts.scores.double(), inner, right=True)
    rows = counts.positives + counts.negatives
    before = torch.nn.functional.pad(rows.cumsum(0), (1, 0))[:-1]
    if counts.weighted:
        return (before / counts.num_rows * num_bins).long().clamp(max=num_bins - 1)
    return before * num_bins // max(int(counts.num_rows), 1)


def _bin(counts: ScoreCounts, part: slice) -> ReliabilityBin:
    scores, rows = counts.scores[part].double(), (counts.positives + counts.negatives)[part]
    count, num_positives = int(rows.sum()), int(counts.positives[part].sum())
    low, high = wilson_interval(num_positives, count)
    return ReliabilityBin(
        count=count,
        min_prediction=float(scores[0]),
        max_prediction=float(scores[-1]),
        mean_prediction=float((scores * rows).sum()) / count,
        observed_rate=num_positives / count,
        observed_low=low,
        observed_high=high,
    )
