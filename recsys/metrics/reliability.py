"""The reliability curve: what was predicted against what happened, in bins of equally many rows."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.metrics.checks import check_labels

WILSON_Z = 1.959963984540054
"""Standard normal quantile of a two-sided 95% interval."""


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


def reliability_bins(labels: Tensor, probabilities: Tensor, *, num_bins: int) -> list[ReliabilityBin]:
    """Split rows by predicted probability into about `num_bins` bins of equally many rows.

    Equal predictions always share a bin, whatever the order of rows, so there may be fewer bins and unequal counts.

    Args:
        labels: (N,), any dtype, each 0 or 1.
        probabilities: (N,), each in [0, 1].
        num_bins: >= 1.
    Returns:
        Non-empty bins, ascending in prediction; none without rows.
    Raises:
        DataError: shapes differ, a label is neither 0 nor 1, or a probability is NaN.
        ConfigError: num_bins < 1.
    """
    if num_bins < 1:
        raise ConfigError(f"num_bins={num_bins}: a reliability curve needs one bin or more; 20 is usual.")
    positive = check_labels(labels, probabilities, "probabilities")
    if positive.numel() == 0:
        return []
    ascending, order = torch.sort(probabilities)
    bins = equal_mass_bins(ascending, num_bins)
    counts = torch.bincount(bins, minlength=num_bins)
    predicted = torch.bincount(bins, weights=ascending.double(), minlength=num_bins)
    observed = torch.bincount(bins[positive[order]], minlength=num_bins)
    ends = counts.cumsum(0)
    return [
        _bin(int(counts[b]), int(observed[b]), float(predicted[b]), ascending[int(ends[b] - counts[b]) : int(ends[b])])
        for b in counts.nonzero().flatten().tolist()
    ]


def wilson_interval(num_positives: int, num_rows: int) -> tuple[float, float]:
    """95% interval of a rate: (low, high) within [0, 1]; unlike the normal one it is sound near 0 and for few rows.

    Source: Wilson, 1927, "Probable inference, the law of succession, and statistical inference".
    """
    rate, z_squared = num_positives / num_rows, WILSON_Z**2
    scale = 1 + z_squared / num_rows
    centre = (rate + z_squared / (2 * num_rows)) / scale
    half = WILSON_Z / scale * math.sqrt(rate * (1 - rate) / num_rows + z_squared / (4 * num_rows**2))
    # The interval holds the rate itself; rounding must not say otherwise at 0 and 1.
    return min(max(centre - half, 0.0), rate), max(min(centre + half, 1.0), rate)


def equal_mass_bins(ascending: Tensor, num_bins: int) -> Tensor:
    """Assign sorted values to bins of about equally many rows without ever splitting equal values.

    Args:
        ascending: (N,), sorted.
        num_bins: >= 1.
    Returns:
        Bin of each value, int64 (N,), ascending within [0, num_bins): the one that the first of its equals falls into,
        so some bins may be empty.
    """
    positions = torch.arange(ascending.numel(), device=ascending.device)
    first = torch.zeros_like(positions)
    first[1:] = torch.where(ascending[1:] != ascending[:-1], positions[1:], 0)
    return first.cummax(0).values * num_bins // ascending.numel()


def _bin(count: int, num_positives: int, predicted_sum: float, values: Tensor) -> ReliabilityBin:
    low, high = wilson_interval(num_positives, count)
    return ReliabilityBin(
        count=count,
        min_prediction=float(values[0]),
        max_prediction=float(values[-1]),
        mean_prediction=predicted_sum / count,
        observed_rate=num_positives / count,
        observed_low=low,
        observed_high=high,
    )
