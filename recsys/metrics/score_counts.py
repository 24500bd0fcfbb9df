"""`ScoreCounts`: what every metric of scores and labels can be computed from, and what adds up over files."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.metrics.checks import check_labels, check_weights

_EXACT_AS = {torch.bool: torch.uint8, torch.float16: torch.float32, torch.bfloat16: torch.float32}


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """Distinct scores with the positives and negatives of each: the sufficient statistic of labelled scores.

    The order of rows is all that it forgets. So it may be built file by file and merged: the metrics of the merged
    counts are the metrics of all rows at once. A distinct float32 score takes 20 bytes; as float32 has 2^23 values per
    power of two, counts of logits stop growing at 2 to 3 GB however many the rows; those of bfloat16 below 2 MB.
    """

    scores: Tensor
    """(S,), ascending, distinct, dtype of the rows (half precision as float32, bool as uint8); no -0.0."""
    positives: Tensor
    """(S,): rows with label 1, int64; or the sum of their weights, float64. Never both 0 with `negatives`."""
    negatives: Tensor
    """(S,), dtype of `positives`: the same of label 0."""

    @classmethod
    def from_rows(cls, labels: Tensor, scores: Tensor, weights: Tensor | None = None) -> "ScoreCounts":
        """Count rows by score.

        Args:
            labels: (N,), any dtype, each 0 or 1.
            scores: (N,), any real dtype, may be infinite.
            weights: (N,), finite and 0 or more: how many rows each stands for; without, each stands for itself, and
                counts are exact. Rows of weight 0 change nothing, but are checked.
        Raises:
            DataError: shapes differ, a label is neither 0 nor 1, a score is NaN, or a weight is impossible.
        """
        positive = check_labels(labels, scores, "scores")
        scores = exactly_comparable(scores)
        if weights is not None:
            mass = check_weights(weights, labels)
            kept = mass > 0
            mass, positive, scores = mass[kept], positive[kept], scores[kept]
            nothing = torch.zeros_like(mass)
            return cls._added_up(scores, torch.where(positive, mass, nothing), torch.where(positive, nothing, mass))
        ascending, order = torch.sort(scores)
        ends = run_ends(ascending)
        positives = torch.diff(positive[order].cumsum(0)[ends], prepend=ends.new_zeros(1))
        negatives = torch.diff(ends, prepend=ends.new_full((1,), -1)) - positives
        return cls(_unsigned_zero(ascending[ends]), positives, negatives)

    def merged(self, *others: "ScoreCounts") -> "ScoreCounts":
        """The counts of all rows of these together, by one sort.

        Exact without weights; with them, sums round as float64 sums do, so the order of merging may move a last digit.

        Raises:
            DataError: the dtypes of scores differ, or some counts are weighted and others not.
        """
        parts = (self, *others)
        kinds = sorted({f"{part.scores.dtype} with {'' if part.weighted else 'un'}weighted rows" for part in parts})
        if len(kinds) > 1:
            raise DataError(f"score counts of different kinds cannot be merged: {kinds}. Build all of them alike.")
        return self._added_up(
            torch.cat([part.scores for part in parts]),
            torch.cat([part.positives for part in parts]),
            torch.cat([part.negatives for part in parts]),
        )

    def probabilities(self) -> "ScoreCounts":
        """The counts by sigmoid(score), float64, of scores that are logits; logits that share one are put together."""
        return self._added_up(torch.sigmoid(self.scores.double()), self.positives, self.negatives)

    @classmethod
    def _added_up(cls, scores: Tensor, positives: Tensor, negatives: Tensor) -> "ScoreCounts":
        """Sort (M,) scores and add the counts (M,) of equal ones."""
        ascending, order = torch.sort(scores, stable=True)
        ends = run_ends(ascending)
        lengths = torch.diff(ends, prepend=ends.new_full((1,), -1))
        run = torch.repeat_interleave(lengths)
        # Not differences of a running sum, which would lose the digits of small weights after large ones.
        sums = [torch.zeros_like(counts[: ends.numel()]).index_add_(0, run, counts[order]) for counts in
                (positives, negatives)]  # fmt: skip
        return cls(_unsigned_zero(ascending[ends]), *sums)

    @property
    def weighted(self) -> bool:
        """Whether the counts are sums of weights."""
        return self.positives.is_floating_point()

    @property
    def num_positives(self) -> float:
        """Rows with label 1: an int; or their weight, a float."""
        return self.positives.sum().item()

    @property
    def num_negatives(self) -> float:
        """Rows with label 0: an int; or their weight, a float."""
        return self.negatives.sum().item()

    @property
    def num_rows(self) -> float:
        """Rows, an int; or their weight, a float."""
        return self.num_positives + self.num_negatives


def exactly_comparable(scores: Tensor) -> Tensor:
    """(N,) in a dtype that all of torch's sorting and searching takes, every value unchanged."""
    return scores.to(_EXACT_AS.get(scores.dtype, scores.dtype))


def run_ends(ascending: Tensor, groups: Tensor | None = None) -> Tensor:
    """Positions int64 (S,) of the last row of each run of equal (group, score), in sorted rows (N,)."""
    last = torch.ones_like(ascending, dtype=torch.bool)
    last[:-1] = ascending[1:] != ascending[:-1]
    if groups is not None:
        last[:-1] |= groups[1:] != groups[:-1]
    return last.nonzero().flatten()


def _unsigned_zero(scores: Tensor) -> Tensor:
    """-0.0 as 0.0, which it equals: which of the two came first must not show."""
    return scores + 0.0 if scores.is_floating_point() else scores
