"""Ranking quality: exact AUC, AUC within groups, and the ROC curve. One sort each, no sampling, no buckets."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.metrics.checks import check_labels, one_class_reason
from recsys.metrics.value import MetricValue


@dataclass(frozen=True, kw_only=True)
class GroupedAuc:
    """AUC averaged over groups, and how much of the data it speaks for."""

    auc: MetricValue
    num_groups: int
    num_groups_used: int  # those with a positive and a negative
    num_rows_used: int  # rows in those groups


def auc(labels: Tensor, scores: Tensor) -> MetricValue:
    """Probability that a random positive scores above a random negative, a tie counting one half.

    Args:
        labels: (N,), any dtype, each 0 or 1.
        scores: (N,), any real dtype; any increasing function of the prediction gives the same value.
    Returns:
        Exact: pairs are counted in int64 (N up to 3e9) and divided once in float64. Undefined for one class or no rows.
    Raises:
        DataError: shapes differ, a label is neither 0 nor 1, or a score is NaN.
    Source: Mann and Whitney, 1947; equals average-rank and trapezoid forms.
    """
    positive = check_labels(labels, scores, "scores")
    num_positives = int(positive.sum())
    if reason := one_class_reason(num_positives, positive.numel()):
        return MetricValue.undefined(reason)
    ascending, order = torch.sort(scores)
    negatives, positives = _counts_up_to(positive[order], _run_ends(ascending))
    won = _doubled_wins(negatives, positives)
    return MetricValue.of(int(won.sum()) / (2 * num_positives * (positive.numel() - num_positives)))


def auc_standard_error(labels: Tensor, scores: Tensor) -> MetricValue:
    """Standard error of `auc` over samples of rows; 1.96 of it either side is a 95% interval.

    Args:
        labels, scores: as for `auc`. Rows count as independent: repeated rows of one user make it too small.
    Returns:
        Undefined with fewer than two rows of a class, or when the classes do not overlap, where the estimate is 0.
    Raises:
        DataError: as `auc`.
    Source: DeLong, DeLong and Clarke-Pearson, 1988, "Comparing the areas under two or more correlated ROC curves".
    """
    positive = check_labels(labels, scores, "scores")
    num_positives, num_negatives = int(positive.sum()), int((~positive).sum())
    if min(num_positives, num_negatives) < 2:
        return MetricValue.undefined(
            f"there are {num_positives} positives and {num_negatives} negatives: two are needed"
        )
    ascending, order = torch.sort(scores)
    negatives, positives = _counts_up_to(positive[order], _run_ends(ascending))
    # Of each run: the share of the other class that its members lie above, ties counted half.
    above_negatives = (negatives[1:] + negatives[:-1]).double() / (2 * num_negatives)
    above_positives = (positives[1:] + positives[:-1]).double() / (2 * num_positives)
    variance = _sample_variance(above_negatives, torch.diff(positives)) / num_positives
    variance += _sample_variance(above_positives, torch.diff(negatives)) / num_negatives
    if variance == 0:
        return MetricValue.undefined("the scores of the classes do not vary against each other")
    return MetricValue.of(variance**0.5)


def gauc(labels: Tensor, scores: Tensor, groups: Tensor) -> GroupedAuc:
    """AUC of every group with both classes, averaged with the group's number of rows (impressions) as weight.

    Args:
        labels, scores: as for `auc`.
        groups: (N,), integer; any values, in any order.
    Returns:
        The average and its coverage; undefined when no group holds both classes.
    Raises:
        DataError: as `auc`, or `groups` has another shape.
    Source: Zhou et al., KDD 2018, arXiv:1706.06978, section 6.3.
    """
    positive = check_labels(labels, scores, "scores")
    if groups.shape != scores.shape:
        raise DataError(f"groups have shape {tuple(groups.shape)}, scores {tuple(scores.shape)}: one group per row.")
    if groups.numel() == 0:
        return GroupedAuc(
            auc=MetricValue.undefined("there are no rows"), num_groups=0, num_groups_used=0, num_rows_used=0
        )
    order = torch.argsort(scores)
    order = order[torch.argsort(groups[order], stable=True)]
    group_auc, num_rows = _auc_by_group(positive[order], scores[order], groups[order])
    used = ~torch.isnan(group_auc)
    num_used, num_rows_used = int(used.sum()), int(num_rows[used].sum())
    average = MetricValue.undefined(f"none of the {used.numel()} groups holds both a positive and a negative")
    if num_used:
        average = MetricValue.of(float((group_auc[used] * num_rows[used]).sum()) / num_rows_used)
    return GroupedAuc(auc=average, num_groups=used.numel(), num_groups_used=num_used, num_rows_used=num_rows_used)


def roc_curve(labels: Tensor, scores: Tensor, *, num_points: int) -> tuple[Tensor, Tensor]:
    """At most `num_points` points of the ROC curve, from (0, 0) to (1, 1).

    Args:
        labels, scores: as for `auc`.
        num_points: >= 2; the exact curve is thinned evenly, its ends kept.
    Returns:
        (false positive rate, true positive rate): float64, equal length, both ascending; empty where AUC is undefined.
    Raises:
        DataError: as `auc`.
    """
    positive = check_labels(labels, scores, "scores")
    if one_class_reason(int(positive.sum()), positive.numel()):
        return torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.float64)
    descending, order = torch.sort(scores, descending=True)
    negatives, positives = _counts_up_to(positive[order], _run_ends(descending))
    keep = torch.linspace(0, negatives.numel() - 1, min(num_points, negatives.numel())).round().long()
    false, true = negatives[keep].double(), positives[keep].double()
    return false / false[-1], true / true[-1]


def _auc_by_group(positive: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """AUC float64 (G,), NaN for one class, and rows int64 (G,), of rows sorted by group, then score."""
    ends = _run_ends(scores, groups)
    negatives, positives = _counts_up_to(positive, ends)
    num_rows = torch.unique_consecutive(groups, return_counts=True)[1]
    group_starts = torch.cat([num_rows.new_zeros(1), num_rows.cumsum(0)])
    # Run r covers rows (ends[r-1], ends[r]]; its group is the one whose row range holds its last row.
    group_of_run = torch.bucketize(ends, group_starts, right=True) - 1
    bounds = torch.searchsorted(ends, group_starts - 1, right=True)
    negatives_at, positives_at = negatives[bounds], positives[bounds]
    # Wins over negatives of earlier groups do not count: take them off run by run.
    won = _doubled_wins(negatives, positives) - 2 * torch.diff(positives) * negatives_at[group_of_run]
    doubled = torch.zeros_like(num_rows).scatter_add_(0, group_of_run, won)
    # 0 / 0 is the NaN that marks a group of one class.
    return doubled.double() / (2 * torch.diff(negatives_at) * torch.diff(positives_at)), num_rows


def _sample_variance(values: Tensor, counts: Tensor) -> float:
    """Unbiased variance of `values` float64 (R,), each taken `counts` int64 (R,) times."""
    total = int(counts.sum())
    mean = float((values * counts).sum()) / total
    return float(((values - mean) ** 2 * counts).sum()) / (total - 1)


def _run_ends(scores: Tensor, groups: Tensor | None = None) -> Tensor:
    """Positions int64 (R,) of the last row of each run of equal (group, score), in sorted rows (N,), N >= 1."""
    last = torch.ones_like(scores, dtype=torch.bool)
    last[:-1] = scores[1:] != scores[:-1]
    if groups is not None:
        last[:-1] |= groups[1:] != groups[:-1]
    return last.nonzero().flatten()


def _counts_up_to(positive: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """(negatives, positives), int64 (R + 1,): how many lie in the first r runs; entry 0 is 0."""
    positives = torch.nn.functional.pad(positive.cumsum(0)[ends], (1, 0))
    return torch.nn.functional.pad(ends + 1, (1, 0)) - positives, positives


def _doubled_wins(negatives: Tensor, positives: Tensor) -> Tensor:
    """Twice the (positive, negative) pairs that each run's positives win, ties counted half, int64 (R,)."""
    return torch.diff(positives) * (negatives[1:] + negatives[:-1])
