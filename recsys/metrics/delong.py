"""How sure an AUC is, and whether two models' AUCs differ on the same rows: DeLong's method, by sorting."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn.functional import pad

from recsys.core.errors import ConfigError, DataError
from recsys.metrics.checks import check_labels
from recsys.metrics.score_counts import ScoreCounts, exactly_comparable
from recsys.metrics.value import MetricValue


@dataclass(frozen=True, kw_only=True)
class AucComparison:
    """AUC of two scores on the same rows: `difference` is the second's minus the first's."""

    first: MetricValue
    second: MetricValue
    difference: MetricValue
    covariance: MetricValue  # of the two AUCs
    standard_error: MetricValue  # of the difference
    low: MetricValue  # ends of the interval of the difference
    high: MetricValue
    p_value: MetricValue  # two-sided, of no difference


def auc_standard_error(labels: Tensor, scores: Tensor, groups: Tensor | None = None) -> MetricValue:
    """Standard error of `auc` over samples of rows; 1.96 of it either side is a 95% interval.

    Args:
        labels, scores: as for `auc`.
        groups: (N,), integer: rows of one group, such as a user, may depend on each other. Without, rows count as
            independent: repeated rows of one user make the error too small.
    Returns:
        Undefined with fewer than two rows of a class (with `groups`: two groups that hold one), or when the classes
        do not overlap, where the estimate is 0.
    Raises:
        DataError: as `auc`, or `groups` has another shape.
    Source: DeLong, DeLong and Clarke-Pearson, 1988, "Comparing the areas under two or more correlated ROC curves";
        groups: Obuchowski, 1997, "Nonparametric analysis of clustered ROC curve data".
    """
    if groups is None:
        return auc_standard_error_of(ScoreCounts.from_rows(labels, scores))
    placed = _Placements.of(labels, groups)
    if reason := placed.reason:
        return MetricValue.undefined(reason)
    above = placed.doubled(scores)
    return _root(placed.covariance(above, above))


def auc_standard_error_of(counts: ScoreCounts) -> MetricValue:
    """`auc_standard_error` of the independent rows behind `counts`.

    Raises:
        DataError: the rows are weighted: a weight does not say how many rows were seen.
    """
    if counts.weighted:
        raise DataError(
            "the DeLong error needs whole rows, these are weighted: bootstrap instead, or drop the weights."
        )
    num_positives, num_negatives = int(counts.num_positives), int(counts.num_negatives)
    if reason := _too_few(num_positives, num_negatives):
        return MetricValue.undefined(reason)
    negatives, positives = pad(counts.negatives.cumsum(0), (1, 0)), pad(counts.positives.cumsum(0), (1, 0))
    # Of each score: the share of the other class that its rows lie above, ties counted half.
    above_negatives = (negatives[1:] + negatives[:-1]).double() / (2 * num_negatives)
    above_positives = (positives[1:] + positives[:-1]).double() / (2 * num_positives)
    variance = _sample_variance(above_negatives, counts.positives) / num_positives
    return _root(variance + _sample_variance(above_positives, counts.negatives) / num_negatives)


def compare_auc(
    labels: Tensor, first: Tensor, second: Tensor, *, groups: Tensor | None = None, level: float = 0.95
) -> AucComparison:
    """Test whether two scores of the same rows have the same AUC.

    Args:
        labels: (N,), any dtype, each 0 or 1.
        first, second: (N,), any real dtype each: the scores of two models.
        groups: (N,), integer, as for `auc_standard_error`.
        level: of the interval of the difference, in (0, 1).
    Returns:
        Undefined as `auc_standard_error`; and, where the difference does not vary (as between scores that order the
        rows alike), without error, interval and p-value.
    Raises:
        DataError: as `auc`, or `groups` has another shape. ConfigError: level outside (0, 1).
    Source: DeLong et al., 1988, and Obuchowski, 1997, as above; by sorting, in N log N: Sun and Xu, 2014, "Fast
        implementation of DeLong's algorithm".
    """
    if not 0 < level < 1:
        raise ConfigError(f"level={level}: an interval covers a share in (0, 1), such as 0.95.")
    check_labels(labels, first, "first scores")
    check_labels(labels, second, "second scores")
    placed = _Placements.of(labels, groups)
    if reason := placed.reason:
        return AucComparison(**dict.fromkeys(AucComparison.__dataclass_fields__, MetricValue.undefined(reason)))
    above_first, above_second = placed.doubled(first), placed.doubled(second)
    # Integers until here: of two scores that order the rows alike, nothing but zeros is left.
    gap = (above_second[0] - above_first[0], above_second[1] - above_first[1])
    difference, error = placed.area(gap), _root(placed.covariance(gap, gap))
    half = NormalDist().inv_cdf((1 + level) / 2)
    return AucComparison(
        first=MetricValue.of(placed.area(above_first)),
        second=MetricValue.of(placed.area(above_second)),
        difference=MetricValue.of(difference),
        covariance=MetricValue.of(placed.covariance(above_first, above_second)),
        standard_error=error,
        low=error if error.value is None else MetricValue.of(difference - half * error.value),
        high=error if error.value is None else MetricValue.of(difference + half * error.value),
        p_value=error if error.value is None else MetricValue.of(math.erfc(abs(difference / error.value) / 2**0.5)),
    )


@dataclass(frozen=True, eq=False)
class _Placements:
    """Rows by class, and the group of each, with what DeLong's method computes from where rows lie among the other."""

    positive: Tensor  # bool (N,)
    groups: tuple[Tensor, Tensor] | None  # of the positives (P,) and the negatives (M,), int64 in [0, num_groups)
    num_groups: int

    @classmethod
    def of(cls, labels: Tensor, groups: Tensor | None) -> "_Placements":
        positive = check_labels(labels, labels, "labels")
        if groups is None:
            return cls(positive, None, labels.numel())
        if groups.shape != labels.shape:
            raise DataError(f"groups have shape {tuple(groups.shape)}, labels {tuple(labels.shape)}: one per row.")
        values, index = torch.unique(groups, return_inverse=True)
        return cls(positive, (index[positive], index[~positive]), values.numel())

    @property
    def reason(self) -> str:
        """Why there is no variance; empty where there is one."""
        num_positives = int(self.positive.sum())
        if self.groups is None:
            return _too_few(num_positives, self.positive.numel() - num_positives)
        holding = [torch.unique(group).numel() for group in self.groups]
        if min(holding) < 2:
            return f"{holding[0]} group(s) hold positives and {holding[1]} hold negatives: two are needed of each"
        return ""

    def doubled(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Of each positive (P,) twice the negatives below it, of each negative (M,) twice the positives above it."""
        scores = exactly_comparable(scores)
        check_labels(self.positive, scores, "scores")
        positives, negatives = scores[self.positive].contiguous(), scores[~self.positive].contiguous()
        below = _doubled_ranks(positives, negatives.sort().values)
        return below, 2 * positives.numel() - _doubled_ranks(negatives, positives.sort().values)

    def area(self, doubled: tuple[Tensor, Tensor]) -> float:
        """AUC, or a difference of AUCs, from placements; pairs counted in int64."""
        return int(doubled[0].sum()) / (2 * doubled[0].numel() * doubled[1].numel())

    def covariance(self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
        """Covariance of the areas of two placements."""
        # What each row adds to the deviation of its area: its placement less the mean of its class, over all pairs.
        num_doubled_pairs = 2 * first[0].numel() * first[1].numel()
        a_pos, a_neg, b_pos, b_neg = (
            (side.double() - side.double().mean()) / num_doubled_pairs for side in (*first, *second)
        )
        if self.groups is None:
            of_positives = float((a_pos * b_pos).sum()) * _unbiased(a_pos.numel())
            return of_positives + float((a_neg * b_neg).sum()) * _unbiased(a_neg.numel())
        a_pos, a_neg, b_pos, b_neg = (
            torch.zeros(self.num_groups, dtype=torch.float64, device=group.device).index_add_(0, group, side)
            for side, group in zip((a_pos, a_neg, b_pos, b_neg), self.groups * 2, strict=True)
        )
        holding = [torch.unique(group).numel() for group in self.groups]
        within = float((a_pos * b_pos).sum()) * _unbiased(holding[0])
        within += float((a_neg * b_neg).sum()) * _unbiased(holding[1])
        return within + float((a_pos * b_neg + a_neg * b_pos).sum()) * _unbiased(self.num_groups)


def _unbiased(num: int) -> float:
    return num / (num - 1)


def _too_few(num_positives: int, num_negatives: int) -> str:
    if min(num_positives, num_negatives) >= 2:
        return ""
    return f"there are {num_positives} positives and {num_negatives} negatives: two are needed"


def _root(variance: float) -> MetricValue:
    if variance <= 0:
        return MetricValue.undefined("the scores of the classes do not vary against each other")
    return MetricValue.of(variance**0.5)


def _doubled_ranks(scores: Tensor, ascending: Tensor) -> Tensor:
    """Of each score (K,), twice how many of `ascending` (M,) lie below it, a tie counting once."""
    return torch.searchsorted(ascending, scores) + torch.searchsorted(ascending, scores, right=True)


def _sample_variance(values: Tensor, counts: Tensor) -> float:
    """Unbiased variance of `values` float64 (R,), each taken `counts` int64 (R,) times."""
    total = int(counts.sum())
    mean = float((values * counts).sum()) / total
    return float(((values - mean) ** 2 * counts).sum()) / (total - 1)
