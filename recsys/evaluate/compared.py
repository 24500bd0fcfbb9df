"""`Comparison`: everything that a comparison shows and a machine reads, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from recsys.evaluate.compare_config import Metric
from recsys.metrics import MetricValue


class Verdict(Enum):
    """What a test allows to say of the candidate."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "no difference that matters"  # the interval lies within the margin
    UNDECIDED = "no difference shown"
    IDENTICAL = "the same"  # on every one of these rows
    UNTESTED = "not tested"


@dataclass(frozen=True, kw_only=True)
class Method:
    """One configuration: a run, or several that differ in their seed."""

    name: str
    runs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Values:
    """A metric of one method on some rows."""

    mean: MetricValue
    by_run: tuple[MetricValue, ...]
    seed_deviation: MetricValue  # standard deviation over runs


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Candidate minus baseline on the same rows."""

    candidate: str
    metric: Metric
    column: str  # of the slice; empty: all rows
    value: str  # of the slice
    num_rows: int
    num_positives: int
    num_clusters: int  # groups of dependent rows; the rows themselves where they are independent
    baseline_values: Values
    candidate_values: Values
    difference: MetricValue
    row_error: MetricValue  # standard error over samples of rows
    seed_error: MetricValue  # standard error over seeds
    standard_error: MetricValue  # of both together
    low: MetricValue  # ends of the interval of the difference
    high: MetricValue
    p_value: MetricValue  # two-sided, of no difference
    adjusted_p: MetricValue  # for the other tests that were made
    detectable: MetricValue  # smallest difference that would be found 4 times out of 5
    verdict: Verdict

    @property
    def gain(self) -> float:
        """The difference, positive where the candidate is better; 0 where undefined."""
        value = self.difference.value_or(0.0)
        return value if self.metric.higher_is_better else -value


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a method takes; None where unknown."""

    method: str
    embedding_bytes: float | None = None  # as served
    file_bytes: float | None = None  # of the exported model
    train_rows_per_second: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One comparison of candidates with a baseline. Those of `overall` and `slices` come by candidate, then metric."""

    baseline: Method
    candidates: tuple[Method, ...]
    metric: Metric  # of the verdict
    margin: Mapping[str, float]
    level: float
    group_key: str  # empty: rows are independent
    num_rows: int
    num_positives: int
    num_clusters: int
    overall: tuple[Difference, ...]
    slices: tuple[Difference, ...]
    calibration_ratios: Mapping[str, MetricValue]  # by method, mean over seeds
    costs: tuple[Cost, ...] = ()
    notes: tuple[str, ...] = ()  # what a reader must know of the rows

    @property
    def methods(self) -> tuple[Method, ...]:
        """The baseline, then the candidates."""
        return (self.baseline, *self.candidates)

    def primary(self, candidate: Method) -> Difference:
        """What the verdict on a candidate is about."""
        return next(d for d in self.overall if d.candidate == candidate.name and d.metric is self.metric)

    def of(self, candidate: Method) -> Sequence[Difference]:
        """All overall differences of a candidate but the primary."""
        return [d for d in self.overall if d.candidate == candidate.name and d.metric is not self.metric]
