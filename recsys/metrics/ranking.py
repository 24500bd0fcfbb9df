"""Ranking quality of scores: exact AUC, average precision, KS, gain and lift, ROC. No sampling, no buckets.

Functions that end in `_of` take `ScoreCounts`, which add up over files; the others take rows and sort them once.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from recsys.core.errors import ConfigError
from recsys.metrics.checks import one_class_reason
from recsys.metrics.score_counts import ScoreCounts
from recsys.metrics.value import MetricValue


def auc(labels: Tensor, scores: Tensor, weights: Tensor | None = None) -> MetricValue:
    """Probability that a random positive scores above a random negative, a tie counting one half.

    Args:
        labels: (N,), any dtype, each 0 or 1.
        scores: (N,), any real dtype; any increasing function of the prediction gives the same value.
        weights: (N,), finite and 0 or more: how many rows each stands for; without, each for itself.
    Returns:
        Without weights exact: pairs are counted in int64 (N up to 3e9) and divided once in float64. Undefined for one
        class or no rows.
    Raises:
        DataError: shapes differ, a label is neither 0 nor 1, a score is NaN, or a weight is impossible.
    Source: Mann and Whitney, 1947; equals average-rank and trapezoid forms.
    """
    return auc_of(ScoreCounts.from_rows(labels, scores, weights))


def auc_of(counts: ScoreCounts) -> MetricValue:
    """`auc` of the rows behind `counts`."""
    num_positives, num_negatives = counts.num_positives, counts.num_negatives
    if reason := one_class_reason(num_positives, num_positives + num_negatives):
        return MetricValue.undefined(reason)
    below = _before(counts.negatives)
    if counts.weighted:  # shares first: the product of two sums may be too large or too small for a float64
        ranked = (2 * below + counts.negatives) / (2 * num_negatives)
        return MetricValue.of(min(float((counts.positives / num_positives * ranked).sum()), 1.0))
    won = counts.positives * (2 * below + counts.negatives)
    return MetricValue.of(int(won.sum()) / (2 * num_positives * num_negatives))


def average_precision_of(counts: ScoreCounts) -> MetricValue:
    """Area under the precision-recall curve as a step function: precision at each score, averaged over positives.

    Args:
        counts: of any scores. Equal scores enter together, so that their order does not matter.
    Returns:
        Undefined without a positive. A random ranking has the rate of positives.
    Source: scikit-learn's `average_precision_score`, which names no interpolation.
    """
    num_positives = counts.num_positives
    if num_positives == 0:
        return MetricValue.undefined(one_class_reason(num_positives, counts.num_rows))
    positives, rows = counts.positives.flip(0), (counts.positives + counts.negatives).flip(0)
    precision = positives.cumsum(0).double() / rows.cumsum(0)
    return MetricValue.of(min(float((positives * precision).sum()) / num_positives, 1.0))


def kolmogorov_smirnov_of(counts: ScoreCounts) -> MetricValue:
    """Largest gap between the score distributions of positives and negatives: max |TPR - FPR| over thresholds.

    Args:
        counts: of any scores.
    Returns:
        In [0, 1]; exact without weights. Undefined for one class or no rows.
    Source: the two-sample statistic of Kolmogorov, 1933, and Smirnov, 1939.
    """
    num_positives, num_negatives = counts.num_positives, counts.num_negatives
    if reason := one_class_reason(num_positives, num_positives + num_negatives):
        return MetricValue.undefined(reason)
    positives, negatives = counts.positives.cumsum(0), counts.negatives.cumsum(0)
    if counts.weighted:
        return MetricValue.of(min(float((positives / num_positives - negatives / num_negatives).abs().max()), 1.0))
    gap = (positives * num_negatives - negatives * num_positives).abs()
    return MetricValue.of(int(gap.max()) / (num_positives * num_negatives))


def gain_of(counts: ScoreCounts, *, share: float) -> MetricValue:
    """Share of all positives among the `share` of rows that score highest (recall at a share).

    Args:
        counts: of any scores. A tie at the cut counts by the part of it above the cut: the mean over its orders.
        share: of rows, in (0, 1].
    Returns:
        Undefined without a positive.
    Raises:
        ConfigError: share outside (0, 1].
    """
    check_share(share)
    num_positives, num_rows = counts.num_positives, counts.num_rows
    if num_positives == 0:
        return MetricValue.undefined(one_class_reason(num_positives, num_rows))
    rows, positives = _from_the_top(counts)
    cut = share * num_rows
    last = int(torch.searchsorted(rows, cut).clamp(1, rows.numel() - 1))
    part = min((cut - float(rows[last - 1])) / float(rows[last] - rows[last - 1]), 1.0)
    found = float(positives[last - 1]) + part * float(positives[last] - positives[last - 1])
    return MetricValue.of(min(found / num_positives, 1.0))


def lift_of(counts: ScoreCounts, *, share: float) -> MetricValue:
    """How many times more positives the best `share` of rows holds than as many random rows: gain / share.

    Args:
        counts, share: as for `gain_of`.
    Returns:
        Undefined without a positive.
    Raises:
        ConfigError: share outside (0, 1].
    """
    gain = gain_of(counts, share=share)
    return gain if gain.value is None else MetricValue.of(gain.value / share)


def gain_curve_of(counts: ScoreCounts, *, num_points: int) -> tuple[Tensor, Tensor]:
    """At most `num_points` points of the gain curve, from (0, 0) to (1, 1); lift is the second over the first.

    Args:
        counts: of any scores.
        num_points: >= 2; the exact curve is thinned evenly, its ends kept.
    Returns:
        (share of rows, share of positives): float64, equal length, both ascending; empty without a positive.
    """
    if counts.num_positives == 0:
        return torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.float64)
    return _thinned(*_from_the_top(counts), num_points)


def roc_curve_of(counts: ScoreCounts, *, num_points: int) -> tuple[Tensor, Tensor]:
    """At most `num_points` points of the ROC curve, from (0, 0) to (1, 1).

    Args:
        counts: of any scores.
        num_points: >= 2; the exact curve is thinned evenly, its ends kept.
    Returns:
        (false positive rate, true positive rate): float64, equal length, both ascending; empty where AUC is undefined.
    """
    if one_class_reason(counts.num_positives, counts.num_rows):
        return torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.float64)
    _, positives = _from_the_top(counts)
    negatives = pad(counts.negatives.flip(0).cumsum(0), (1, 0)).double()
    return _thinned(negatives, positives, num_points)


def check_share(share: float) -> None:
    """Refuse what is no share of rows.

    Raises:
        ConfigError: share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ConfigError(
            f"share={share}: gain and lift look at a share of rows in (0, 1], such as 0.1 for the top 10%."
        )


def evenly_spaced(num_present: int, num_wanted: int) -> Tensor:
    """At most `num_wanted` positions int64 in [0, num_present), ascending, distinct, first and last among them."""
    # In float64: float32 has no 2**24 + 1 and would round the last position beyond the end.
    return torch.linspace(0, num_present - 1, min(num_wanted, num_present), dtype=torch.float64).round().long()


def _thinned(across: Tensor, up: Tensor, num_points: int) -> tuple[Tensor, Tensor]:
    keep = evenly_spaced(across.numel(), num_points).to(across.device)
    return across[keep] / across[-1], up[keep] / up[-1]


def _from_the_top(counts: ScoreCounts) -> tuple[Tensor, Tensor]:
    """(rows, positives) among the k highest of S distinct scores, float64 (S + 1,), k = 0 first."""
    rows = (counts.positives + counts.negatives).flip(0).cumsum(0)
    return pad(rows, (1, 0)).double(), pad(counts.positives.flip(0).cumsum(0), (1, 0)).double()


def _before(counts: Tensor) -> Tensor:
    """Sum of all entries before each, (S,)."""
    return pad(counts.cumsum(0), (1, 0))[:-1]
