"""AUC within groups: what a ranking shown to one user is worth, averaged over users."""

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor
from torch.nn.functional import pad

from recsys.core.errors import DataError
from recsys.metrics.checks import check_labels, check_weights
from recsys.metrics.score_counts import exactly_comparable, run_ends
from recsys.metrics.value import MetricValue


class GroupWeight(Enum):
    """What a group counts in the average over groups."""

    EQUAL = "equal"  # every group alike
    IMPRESSIONS = "impressions"  # its rows, or their weight
    CLICKS = "clicks"  # its positive rows, or their weight


@dataclass(frozen=True, kw_only=True)
class GroupedAuc:
    """AUC averaged over groups, and how much of the data it speaks for."""

    auc: MetricValue
    num_groups: int
    num_groups_used: int  # those with a positive and a negative
    num_rows_used: float  # rows in those groups, an int; or their weight


@dataclass(frozen=True, eq=False)
class GroupedCounts:
    """Distinct pairs of group and score with the positives and negatives of each; merges over files as `ScoreCounts`.

    About one entry per row: it saves memory only where scores of a group tie.
    """

    groups: Tensor
    """(S,), integer, ascending."""
    scores: Tensor
    """(S,), ascending and distinct within a group."""
    positives: Tensor
    """(S,): rows with label 1, int64; or the sum of their weights, float64. Never both 0 with `negatives`."""
    negatives: Tensor
    """(S,), dtype of `positives`: the same of label 0."""

    @classmethod
    def from_rows(
        cls, labels: Tensor, scores: Tensor, groups: Tensor, weights: Tensor | None = None
    ) -> "GroupedCounts":
        """Count rows by group and score.

        Args:
            labels, scores, weights: (N,), as for `ScoreCounts.from_rows`.
            groups: (N,), integer; any values, in any order.
        Raises:
            DataError: shapes differ, a label is neither 0 nor 1, a score is NaN, or a weight is impossible.
        """
        positive = check_labels(labels, scores, "scores")
        if groups.shape != scores.shape or groups.is_floating_point():
            raise DataError(
                f"groups have shape {tuple(groups.shape)} and dtype {groups.dtype}, scores shape "
                f"{tuple(scores.shape)}: pass one group per row, an integer each."
            )
        scores, mass = exactly_comparable(scores), positive.new_ones(positive.shape, dtype=torch.int64)
        if weights is not None:
            mass = check_weights(weights, labels)
            kept = mass > 0
            mass, positive, scores, groups = mass[kept], positive[kept], scores[kept], groups[kept]
        nothing = torch.zeros_like(mass)
        return cls._added_up(groups, scores, torch.where(positive, mass, nothing), torch.where(positive, nothing, mass))

    def merged(self, *others: "GroupedCounts") -> "GroupedCounts":
        """The counts of all rows of these together.

        Raises:
            DataError: dtypes differ: of scores, of groups, or between weighted and unweighted counts.
        """
        parts = (self, *others)
        kinds = {(part.groups.dtype, part.scores.dtype, part.positives.dtype) for part in parts}
        if len(kinds) > 1:
            raise DataError(f"grouped counts of different dtypes cannot be merged: {sorted(map(str, kinds))}.")
        return self._added_up(
            torch.cat([part.groups for part in parts]),
            torch.cat([part.scores for part in parts]),
            torch.cat([part.positives for part in parts]),
            torch.cat([part.negatives for part in parts]),
        )

    @classmethod
    def _added_up(cls, groups: Tensor, scores: Tensor, positives: Tensor, negatives: Tensor) -> "GroupedCounts":
        """Sort (M,) entries by group, then score, and add the counts of equal pairs."""
        order = torch.argsort(scores, stable=True)
        order = order[torch.argsort(groups[order], stable=True)]
        groups, scores = groups[order], scores[order]
        ends = run_ends(scores, groups)
        run = torch.repeat_interleave(torch.diff(ends, prepend=ends.new_full((1,), -1)))
        empty = torch.zeros_like(positives[: ends.numel()])
        return cls(
            groups[ends],
            scores[ends],
            empty.index_add(0, run, positives[order]),
            empty.index_add(0, run, negatives[order]),
        )

    def by_group(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Each group's (value, AUC, positives, negatives), (G,): its own dtype, float64, and twice that of the counts.

        AUC is NaN in a group of one class; without weights, its pairs are counted in int64.
        """
        values, lengths = torch.unique_consecutive(self.groups, return_counts=True)
        group = torch.repeat_interleave(lengths)
        empty = torch.zeros_like(self.positives[: values.numel()])
        positives, negatives = empty.index_add(0, group, self.positives), empty.index_add(0, group, self.negatives)
        below = self._negatives_below(group, lengths)
        if self.positives.is_floating_point():  # shares first, as in `auc_of`
            ranked = (2 * below + self.negatives) / (2 * negatives[group])
            area = empty.index_add(0, group, self.positives / positives[group] * ranked).clamp(max=1)
        else:
            won = empty.index_add(0, group, self.positives * (2 * below + self.negatives))
            area = won.double() / (2 * positives * negatives)
        return values, torch.where((positives > 0) & (negatives > 0), area, math.nan), positives, negatives

    def _negatives_below(self, group: Tensor, lengths: Tensor) -> Tensor:
        """Negatives of the same group with a lower score, (S,)."""
        position = torch.arange(group.numel(), device=group.device) - (lengths.cumsum(0) - lengths)[group]
        if not self.negatives.is_floating_point():
            before = pad(self.negatives.cumsum(0), (1, 0))[:-1]
            return before - before[torch.arange(group.numel(), device=group.device) - position]
        # Differences of one running sum would lose the digits of a light group that follows heavy ones: add in
        # doubling steps that never leave the group.
        upto, step = self.negatives, 1
        while step < int(lengths.max() if lengths.numel() else 0):
            upto = upto + torch.where(position >= step, pad(upto, (step, 0))[: upto.numel()], 0.0)
            step *= 2
        return torch.where(position >= 1, pad(upto, (1, 0))[: upto.numel()], 0.0)


def gauc(labels: Tensor, scores: Tensor, groups: Tensor, weights: Tensor | None = None) -> GroupedAuc:
    """AUC of every group with both classes, averaged with the group's number of rows (impressions) as weight.

    Args:
        labels, scores: as for `auc`.
        groups: (N,), integer; any values, in any order.
        weights: (N,), as for `auc`.
    Returns:
        The average and its coverage; undefined when no group holds both classes.
    Raises:
        DataError: as `auc`, or `groups` has another shape.
    Source: Zhou et al., KDD 2018, arXiv:1706.06978, section 6.3.
    """
    return gauc_of(GroupedCounts.from_rows(labels, scores, groups, weights))


def gauc_of(counts: GroupedCounts, *, weighting: GroupWeight = GroupWeight.IMPRESSIONS) -> GroupedAuc:
    """`gauc` of the rows behind `counts`, with a choice of what a group counts.

    Args:
        counts: of any scores.
        weighting: by impressions speaks of pages as they were shown, equal of users, by clicks of users who click.
    Returns:
        The average and its coverage; undefined when no group holds both classes.
    Source: Zhu et al., KDD 2017, arXiv:1703.02091, which takes 1, views or clicks; Zhou et al. as `gauc`.
    """
    _, area, positives, negatives = counts.by_group()
    return average_of_groups(area, positives, negatives, weighting=weighting)


def average_of_groups(area: Tensor, positives: Tensor, negatives: Tensor, *, weighting: GroupWeight) -> GroupedAuc:
    """`gauc_of` from each group's numbers, (G,) as `GroupedCounts.by_group` gives them; parts of groups concatenate."""
    used = ~torch.isnan(area)
    rows = (positives + negatives)[used]
    num_used = int(used.sum())
    average = MetricValue.undefined(f"none of the {used.numel()} groups holds both a positive and a negative")
    if used.numel() == 0:
        weighted = positives.is_floating_point()
        average = MetricValue.undefined("no row has a weight above 0" if weighted else "there are no rows")
    elif num_used:
        masses = {GroupWeight.IMPRESSIONS: rows, GroupWeight.CLICKS: positives[used]}
        mass = masses.get(weighting, torch.ones_like(rows))
        average = MetricValue.of(float((area[used] * mass).sum()) / mass.sum().item())
    return GroupedAuc(auc=average, num_groups=used.numel(), num_groups_used=num_used, num_rows_used=rows.sum().item())
