"""`Evaluation`: everything that a report shows and a machine reads, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass

from recsys.metrics import MetricValue, ReliabilityBin

Metrics = Mapping[str, MetricValue]


@dataclass(frozen=True, kw_only=True)
class SliceRow:
    """Metrics of the rows whose `column` has the value, or lies in the bucket, that `value` names."""

    column: str
    value: str
    num_rows: int
    num_positives: int
    metrics: Metrics


@dataclass(frozen=True, kw_only=True)
class ScoreHistogram:
    """Where the logits of each class lie: `edges` has one element more than the two lists of shares of the class."""

    edges: tuple[float, ...] = ()
    negatives: tuple[float, ...] = ()
    positives: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RocCurve:
    """Points from (0, 0) to (1, 1); empty where AUC is undefined."""

    false_rate: tuple[float, ...] = ()
    true_rate: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation of one set of predictions."""

    num_rows: int
    num_positives: int
    metrics: Metrics
    reliability: tuple[ReliabilityBin, ...]
    roc: RocCurve
    histogram: ScoreHistogram
    slices: tuple[SliceRow, ...]
