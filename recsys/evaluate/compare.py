"""`compare`: from the predictions of several runs on the same rows to what may be said of their differences."""

import logging
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.evaluate.compare_config import SLICE_METRICS, CompareConfig, Metric
from recsys.evaluate.compare_rows import aligned, group_ids
from recsys.evaluate.compared import Comparison, Difference, Method, Values, Verdict
from recsys.evaluate.config import EvaluateConfig
from recsys.evaluate.paired import Part, row_errors
from recsys.evaluate.sliced import DAY
from recsys.evaluate.slices import check_sliceable, fit_slicing
from recsys.evaluate.student import critical, two_sided_p
from recsys.metrics import GroupWeight, MetricValue, benjamini_hochberg, holm

logger = logging.getLogger(__name__)

POWER = 0.8
SEED = re.compile(r"_seed\d+(?=$|[_/])")


def compare(predictions: Mapping[str, pl.DataFrame], config: CompareConfig, slicing: EvaluateConfig) -> Comparison:
    """Compare candidates with a baseline, overall and by slice.

    Args:
        predictions: by name of the run, the baseline first; rows with `__row__`, `label`, `logit`, and, in the
            first, the columns that `config` names. Rows may be in any order.
        config: what to test; of `group_key` and `slices`, None means none, of `gauc_weight` impressions.
        slicing: how slices are made.
    Returns:
        Plain values. Verdict by `config.metric`, Holm over candidates; the other metrics, Holm over candidates and
        metrics; slices, Benjamini-Hochberg over all of them: they are many, and meant to be looked into.
    Raises:
        DataError: the runs did not score the same rows, or a column is missing or cannot be used.
        ConfigError: fewer than two methods, GAUC without `group_key`, or a slice column that cannot be used.
    """
    methods = methods_of(list(predictions), group_seeds=config.group_seeds)
    metrics = _metrics(methods, config)
    frame, labels, logits = aligned(predictions)
    groups = group_ids(frame, config.group_key) if config.group_key else None
    part = Part(labels, logits, groups, config.gauc_weight or GroupWeight.IMPRESSIONS)
    numbers = {name: number for number, name in enumerate(predictions)}
    testing = _Testing(methods, numbers, config)
    overall = _adjusted_overall(list(testing.differences(part, metrics)), config)
    slices = [d for named in _slices(frame, part, config, slicing) for d in testing.slice_differences(*named)]
    logger.info("compared %d methods on %d rows and %d slices", len(methods), part.num_rows, len(slices))
    return Comparison(
        baseline=methods[0],
        candidates=tuple(methods[1:]),
        metric=config.metric,
        margin=dict(config.margin),
        level=config.level,
        group_key=config.group_key or "",
        num_rows=part.num_rows,
        num_positives=part.num_positives,
        num_clusters=part.clusters.num_clusters,
        overall=tuple(overall),
        slices=tuple(_adjusted(slices, benjamini_hochberg, config)),
        calibration_ratios={m.name: _mean([part.calibration_ratio(numbers[r]) for r in m.runs]) for m in methods},
    )


def methods_of(runs: Sequence[str], *, group_seeds: bool) -> list[Method]:
    """The runs as methods, in order; with `group_seeds`, those whose names differ in `_seed<number>` alone as one."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        groups.setdefault(SEED.sub("", run) if group_seeds else run, []).append(run)
    return [Method(name=name, runs=tuple(members)) for name, members in groups.items()]


def _metrics(methods: Sequence[Method], config: CompareConfig) -> list[Metric]:
    if len(methods) < 2:
        raise ConfigError(
            f"compare.runs={[run for method in methods for run in method.runs]}: "
            f"{'no method' if not methods else 'one method'} alone, nothing to compare it with. Name a baseline and at "
            "least one candidate: compare.runs=[a,b]; compare.group_seeds=true makes runs of other seeds one method."
        )
    if config.metric is Metric.GAUC and not config.group_key:
        raise ConfigError("compare.metric=GAUC needs groups. Set compare.group_key, such as to the user's column.")
    return [metric for metric in Metric if metric is not Metric.GAUC or config.group_key]


def _slices(
    frame: pl.DataFrame, part: Part, config: CompareConfig, slicing: EvaluateConfig
) -> Iterator[tuple[Part, str, str]]:
    """(Its rows, column, value) of every slice that is large enough, named as an evaluation's report names them."""
    for name in config.slices or []:
        column = slice_column(name)
        by_day = column != name
        if column not in frame.columns:
            raise ConfigError(
                f"compare.slices: no column {column!r} beside the predictions, only {frame.columns}. Name it in "
                "dataset.passthrough, or a feature in evaluate.frequency_slices, and evaluate again."
            )
        check_sliceable(frame.schema, column, by_day=by_day)
        made = fit_slicing([frame[column]], slicing, by_day=by_day)
        codes = made.codes(frame[column])
        for code, value in enumerate(made.names):
            rows = (codes == code).nonzero().flatten()
            if rows.numel() >= slicing.min_slice_rows:
                yield part.take(rows), name, value


def slice_column(name: str) -> str:
    """The column of predictions behind a slice's name, which differs for days."""
    return name.removeprefix(DAY)


class _Testing:
    """Tests of all candidates against the baseline, on any rows."""

    def __init__(self, methods: Sequence[Method], numbers: Mapping[str, int], config: CompareConfig) -> None:
        self._baseline, *self._candidates = methods
        self._runs = {method.name: tuple(numbers[run] for run in method.runs) for method in methods}
        self._config = config

    def slice_differences(self, part: Part, column: str, value: str) -> Iterator[Difference]:
        """Of each candidate in each of the metrics of slices."""
        for found in self.differences(part, SLICE_METRICS):
            yield replace(found, column=column, value=value)

    def differences(self, part: Part, metrics: Sequence[Metric]) -> Iterator[Difference]:
        """Of each candidate in each metric, tested alone."""
        baseline = self._runs[self._baseline.name]
        contrasts = [(baseline, self._runs[candidate.name]) for candidate in self._candidates]
        errors = row_errors(part, contrasts, metrics, self._config)
        values = {(m, name): _values(part, m, runs) for m in metrics for name, runs in self._runs.items()}
        for number, candidate in enumerate(self._candidates):
            for metric in metrics:
                pair = values[metric, self._baseline.name], values[metric, candidate.name]
                yield self._difference(part, metric, candidate.name, pair, errors[number, metric])

    def _difference(
        self, part: Part, metric: Metric, candidate: str, pair: tuple[Values, Values], row_error: MetricValue
    ) -> Difference:
        first, second = pair
        difference = first.mean if first.mean.value is None else second.mean
        if first.mean.value is not None and second.mean.value is not None:
            difference = MetricValue.of(second.mean.value - first.mean.value)
        row_error = row_error if difference.defined else difference
        seed_error, degrees = seed_error_of(first, second)
        error, degrees = _joined(row_error, part.num_fewest - 1, seed_error, degrees)
        tested = self._tested(difference, error, degrees)
        return Difference(
            candidate=candidate,
            metric=metric,
            column="",
            value="",
            num_rows=part.num_rows,
            num_positives=part.num_positives,
            num_clusters=part.clusters.num_clusters,
            baseline_values=first,
            candidate_values=second,
            difference=difference,
            row_error=row_error,
            seed_error=seed_error,
            standard_error=error,
            adjusted_p=tested["p_value"],
            verdict=Verdict.UNTESTED,
            **tested,
        )

    def _tested(self, difference: MetricValue, error: MetricValue, degrees: float) -> dict[str, MetricValue]:
        """Interval, p-value and the difference that would be found."""
        names = ("low", "high", "p_value", "detectable")
        if difference.value is None or error.value is None:
            return dict.fromkeys(names, difference if difference.value is None else error)
        half = critical(self._config.level, degrees) * error.value
        # Of several candidates, Holm's method may compare each p-value with its share of the level.
        strict = critical(1 - (1 - self._config.level) / len(self._candidates), degrees)
        found = (
            difference.value - half,
            difference.value + half,
            two_sided_p(difference.value / error.value, degrees),
            (strict + critical(2 * POWER - 1, degrees)) * error.value,
        )
        return {name: MetricValue.of(value) for name, value in zip(names, found, strict=True)}


def _values(part: Part, metric: Metric, runs: Sequence[int]) -> Values:
    by_run = tuple(part.value(metric, run) for run in runs)
    known = [value.value for value in by_run if value.value is not None]
    deviation = MetricValue.undefined("one run has no spread")
    if len(known) >= 2:
        deviation = MetricValue.of(statistics.stdev(known))
    return Values(mean=_mean(by_run), by_run=by_run, seed_deviation=deviation)


def _mean(values: Sequence[MetricValue]) -> MetricValue:
    """Of the runs; undefined where one of them is."""
    missing = next((value for value in values if value.value is None), None)
    return missing or MetricValue.of(sum(value.value_or(0.0) for value in values) / len(values))


def seed_error_of(first: Values, second: Values) -> tuple[MetricValue, float]:
    """(Standard error of the difference of means over other seeds, degrees of freedom).

    A method with one run is taken to vary as much as the other. Runs share the test rows, so this holds the part of
    the rows' error that differs between runs once more: errors come out too large rather than too small.

    Source: Welch, 1947, "The generalization of 'Student's' problem when several different population variances are
        involved".
    """
    sides = [(len(side.by_run), side.seed_deviation.value) for side in (first, second)]
    known = [(number, deviation) for number, deviation in sides if deviation is not None]
    if not known:
        return MetricValue.undefined("one run of each method: nothing is known of other seeds"), math.inf
    if len(known) == 1:
        ((number, deviation),) = known
        return MetricValue.of(deviation * sum(1 / runs for runs, _ in sides) ** 0.5), number - 1
    variances = [deviation**2 / number for number, deviation in known]
    return MetricValue.of(sum(variances) ** 0.5), _degrees(variances, [number - 1 for number, _ in known])


def _joined(
    row_error: MetricValue, row_degrees: float, seed_error: MetricValue, seed_degrees: float
) -> tuple[MetricValue, float]:
    """(Standard error of both, degrees of freedom)."""
    if row_error.value is None or seed_error.value is None:
        return row_error, row_degrees
    parts = [row_error.value**2, seed_error.value**2]
    return MetricValue.of(sum(parts) ** 0.5), _degrees(parts, [row_degrees, seed_degrees])


def _degrees(variances: Sequence[float], degrees: Sequence[float]) -> float:
    """Of a sum of independent estimates of variance, after Welch and Satterthwaite."""
    below = sum(variance**2 / of for variance, of in zip(variances, degrees, strict=True))
    return sum(variances) ** 2 / below if below > 0 else math.inf


def _adjusted_overall(found: Sequence[Difference], config: CompareConfig) -> list[Difference]:
    primary = _adjusted([d for d in found if d.metric is config.metric], holm, config)
    others = _adjusted([d for d in found if d.metric is not config.metric], holm, config)
    order = {(d.candidate, d.metric): number for number, d in enumerate(found)}
    return sorted([*primary, *others], key=lambda d: order[d.candidate, d.metric])


def _adjusted(
    found: Sequence[Difference], adjust: Callable[[Tensor], Tensor], config: CompareConfig
) -> list[Difference]:
    """With p-values adjusted for all of `found` that were tested, and the verdicts."""
    tested = [d.p_value.value for d in found if d.p_value.value is not None]
    adjusted = iter(adjust(torch.tensor(tested, dtype=torch.float64)).tolist())
    made = [replace(d, adjusted_p=MetricValue.of(next(adjusted)) if d.p_value.defined else d.p_value) for d in found]
    return [replace(d, verdict=verdict_of(d, config)) for d in made]


def verdict_of(found: Difference, config: CompareConfig) -> Verdict:
    """What the interval and the adjusted p-value of a difference allow to say."""
    if found.adjusted_p.value is None or found.low.value is None or found.high.value is None:
        too_few = min(found.num_positives, found.num_rows - found.num_positives) == 0
        same = found.difference.value == 0 and not too_few and "not vary" in found.standard_error.undefined_reason
        return Verdict.IDENTICAL if same else Verdict.UNTESTED
    if found.adjusted_p.value <= 1 - config.level:
        return Verdict.BETTER if found.gain > 0 else Verdict.WORSE
    margin = config.margin_of(found.metric)
    inside = -margin < found.low.value and found.high.value < margin
    return Verdict.EQUIVALENT if inside else Verdict.UNDECIDED
