"""What one score says of the label alone, counted in parts: AUC of clicks, correlation with numbers."""

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from recsys.core.manifest import Manifest
from recsys.metrics import MetricValue, ScoreCounts, auc_of

NO_ROWS = MetricValue.undefined("there are no rows")


class Alone(Protocol):
    """Takes rows in parts."""

    def add(self, labels: Tensor, scores: Tensor) -> None:
        """Labels (B,) and scores (B,) of rows."""

    def found(self, *, signed: bool) -> MetricValue:
        """Of all rows; not `signed`: or of the negated score, if that says more."""


@dataclass(eq=False)
class AucAlone:
    """AUC of scores of clicks."""

    _counts: ScoreCounts | None = None

    def add(self, labels: Tensor, scores: Tensor) -> None:
        """Count rows."""
        counts = ScoreCounts.from_rows(labels, scores)
        self._counts = counts if self._counts is None else self._counts.merged(counts)

    def found(self, *, signed: bool) -> MetricValue:
        """Of all rows."""
        value = NO_ROWS if self._counts is None else auc_of(self._counts)
        return value if signed or value.value is None else MetricValue.of(max(value.value, 1 - value.value))


@dataclass(eq=False)
class CorrelationAlone:
    """Pearson's correlation of scores with number labels.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    _count: int = 0
    _label: float = 0.0
    _score: float = 0.0
    _labels: float = 0.0  # sum of squared distances from the mean label
    _scores: float = 0.0
    _products: float = 0.0

    def add(self, labels: Tensor, scores: Tensor) -> None:
        """Count rows."""
        y, x, count = labels.double(), scores.double(), labels.numel()
        if not count:
            return
        label, score = float(y.mean()), float(x.mean())
        y, x, total = y - label, x - score, self._count + count
        to_label, to_score, both = label - self._label, score - self._score, self._count * count / total
        self._labels += float((y * y).sum()) + to_label**2 * both
        self._scores += float((x * x).sum()) + to_score**2 * both
        self._products += float((x * y).sum()) + to_label * to_score * both
        self._label += to_label * count / total
        self._score += to_score * count / total
        self._count = total

    def found(self, *, signed: bool) -> MetricValue:
        """Of all rows; undefined where labels or scores are all equal."""
        if not self._count:
            return NO_ROWS
        flat = [spread <= 1e-18 * self._count * mean**2 for spread, mean in self._spreads]
        if any(flat):
            return MetricValue.undefined(f"all {'labels' if flat[0] else 'values'} are equal")
        value = self._products / math.sqrt(self._labels) / math.sqrt(self._scores)
        return MetricValue.of(value if signed else abs(value))

    @property
    def _spreads(self) -> tuple[tuple[float, float], ...]:
        return (self._labels, self._label), (self._scores, self._score)


def alone_of(manifest: Manifest) -> Alone:
    """Nothing counted yet."""
    return AucAlone() if manifest.label is None else CorrelationAlone()
