"""`Evaluation`: everything that a report shows and a machine reads, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from recsys.metrics import MetricValue, PolicyValue, ReliabilityBin

Metrics = Mapping[str, MetricValue]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Where a metric lies with 95% confidence, or the reason why that is not known."""

    low: MetricValue
    high: MetricValue
    method: str

    @classmethod
    def undefined(cls, reason: str) -> "Interval":
        """No interval, because of `reason`."""
        return cls(low=MetricValue.undefined(reason), high=MetricValue.undefined(reason), method="")


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """AUC within a slice minus AUC within all other rows."""

    difference: MetricValue
    standard_error: MetricValue
    p_value: MetricValue  # two-sided, of no difference
    adjusted_p_value: MetricValue  # after Benjamini and Hochberg, over all slices of the report

    @classmethod
    def undefined(cls, reason: str) -> "Contrast":
        """Nothing is known, because of `reason`."""
        return cls(**dict.fromkeys(cls.__dataclass_fields__, MetricValue.undefined(reason)))


@dataclass(frozen=True, kw_only=True)
class SliceRow:
    """Metrics of the rows whose `column` has the value, or lies in the bucket, that `value` names."""

    column: str
    value: str
    num_rows: int
    num_positives: int
    metrics: Metrics
    versus_rest: Contrast


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

    @classmethod
    def of(cls, false_rate: Tensor, true_rate: Tensor) -> "RocCurve":
        """From (P,) each."""
        return cls(false_rate=tuple(false_rate.tolist()), true_rate=tuple(true_rate.tolist()))


@dataclass(frozen=True, kw_only=True)
class GainCurve:
    """Share of positives among a share of rows, best first: from (0, 0) to (1, 1); empty without a positive."""

    rows: tuple[float, ...] = ()
    positives: tuple[float, ...] = ()

    @classmethod
    def of(cls, rows: Tensor, positives: Tensor) -> "GainCurve":
        """From (P,) each."""
        return cls(rows=tuple(rows.tolist()), positives=tuple(positives.tolist()))


@dataclass(frozen=True, kw_only=True)
class CalibrationResult:
    """What a calibration map that was fitted on other rows does to these; both sides have the same keys."""

    name: str
    before: Metrics
    after: Metrics


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation of one set of predictions."""

    num_rows: int
    num_positives: int
    metrics: Metrics
    intervals: Mapping[str, Interval]  # of 95%, by metric
    reliability: tuple[ReliabilityBin, ...]
    roc: RocCurve
    gain: GainCurve
    histogram: ScoreHistogram
    slices: tuple[SliceRow, ...]
    calibration: CalibrationResult | None
    policies: Mapping[str, PolicyValue]  # counterfactual values by estimator; empty where not asked for
    weight: float | None = None  # sum of the weights of rows, by which metrics count them; None: all count alike
