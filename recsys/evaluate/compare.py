"""`compare`: from the predictions of several runs on the same rows to what may be said of their differences."""

import logging
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.evaluate.compare_config import CLICK_METRICS, NUMBER_METRICS, SLICE_METRICS, CompareConfig, Metric
from recsys.evaluate.compare_errors import is_unvarying, joined_error, seed_error_of
from recsys.evaluate.compare_rows import PREDICTION, aligned, check_group_column, group_ids
from recsys.evaluate.compared import Comparison, Difference, Method, Values, Verdict
from recsys.evaluate.config import EvaluateConfig
from recsys.evaluate.paired import NumberPart, Part, row_errors
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
        predictions: by name of the run, the baseline first; rows with `__row__`, `label`, `logit` (or, where labels
            are numbers, `prediction`), and, in the first, the columns that `config` names. Rows may be in any order.
        config: what to test; of `group_key` and `slices`, None means none, of `gauc_weight` impressions.
        slicing: how slices are made.
    Returns:
        Plain values. Verdict by `config.metric`, Holm over candidates; the other metrics, Holm over candidates and
        metrics; slices, Benjamini-Hochberg over all of them: they are many, and meant to be looked into.
    Raises:
        DataError: the runs did not score the same rows, or a column is missing or cannot be used.
        ConfigError: fewer than two methods, GAUC without `group_key`, or a slice column that cannot be used.
    """
    schema = next((frame.schema for frame in predictions.values()), pl.Schema())
    check_possible(list(predictions), schema, config)
    config = replace(config, metric=metric_of(schema, config))
    methods = methods_of(list(predictions), group_seeds=config.group_seeds)
    frame, labels, logits = aligned(predictions)
    groups = group_ids(frame, config.group_key) if config.group_key else None
    kind = NumberPart if config.metric in NUMBER_METRICS else Part
    part = kind(labels, logits, groups, config.gauc_weight or GroupWeight.IMPRESSIONS)
    numbers = {name: number for number, name in enumerate(predictions)}
    testing = _Testing(methods, numbers, config)
    overall = _adjusted_overall(list(testing.differences(part, testing.metrics)), config)
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


def metric_of(schema: pl.Schema, config: CompareConfig) -> Metric:
    """What the verdict is about; where labels are numbers, AUC, the default, stands for RMSE.

    Raises:
        ConfigError: it is of clicks where labels are numbers, or the reverse.
    """
    numbers = PREDICTION in schema
    metric = Metric.RMSE if numbers and config.metric is Metric.AUC else config.metric
    if numbers != (metric in NUMBER_METRICS):
        choices = [each.name for each in (NUMBER_METRICS if numbers else CLICK_METRICS)]
        what = "numbers" if numbers else "clicks"
        raise ConfigError(f"compare.metric={metric.name}: the labels of these runs are {what}. Choose of {choices}.")
    return metric


def check_possible(runs: Sequence[str], schema: pl.Schema, config: CompareConfig) -> None:
    """Refuse what no predictions with these columns could be compared by; needs none of their rows.

    Args:
        runs: names, the baseline first.
        schema: of the baseline's predictions.
        config: what is asked for.
    Raises:
        DataError, ConfigError: as `compare`.
    """
    methods = methods_of(runs, group_seeds=config.group_seeds)
    if len(methods) < 2:
        raise ConfigError(
            f"compare.runs={[run for method in methods for run in method.runs]}: "
            f"{'no method' if not methods else 'one method'} alone, nothing to compare it with. Name a baseline and at "
            "least one candidate: compare.runs=[a,b]; compare.group_seeds=true makes runs of other seeds one method."
        )
    if metric_of(schema, config) is Metric.GAUC and not config.group_key:
        raise ConfigError("compare.metric=GAUC needs groups. Set compare.group_key, such as to the user's column.")
    if config.group_key:
        check_group_column(schema, config.group_key)
    for name in config.slices or []:
        column = slice_column(name)
        if column not in schema:
            raise ConfigError(
                f"compare.slices: no column {column!r} beside the predictions, only {schema.names()}. Name it in "
                "dataset.passthrough, or a feature in evaluate.frequency_slices, and evaluate again."
            )
        check_sliceable(schema, column, by_day=column != name)


def _slices(
    frame: pl.DataFrame, part: Part, config: CompareConfig, slicing: EvaluateConfig
) -> Iterator[tuple[Part, str, str]]:
    """(Its rows, column, value) of every slice that is large enough, named as an evaluation's report names them."""
    for name in config.slices or []:
        column = slice_column(name)
        made = fit_slicing([frame[column]], slicing, by_day=column != name)
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

    @property
    def metrics(self) -> list[Metric]:
        """All that fit the labels."""
        if self._config.metric in NUMBER_METRICS:
            return list(NUMBER_METRICS)
        return [metric for metric in CLICK_METRICS if metric is not Metric.GAUC or self._config.group_key]

    def slice_differences(self, part: Part, column: str, value: str) -> Iterator[Difference]:
        """Of each candidate in each of the metrics of slices."""
        for found in self.differences(part, NUMBER_METRICS if self._config.metric in NUMBER_METRICS else SLICE_METRICS):
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
        of_seeds = seed_error_of(first, second)
        error, degrees = joined_error(difference, (row_error, part.num_fewest - 1), of_seeds)
        tested = self._tested(part, difference, error, degrees)
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
            seed_error=of_seeds[0],
            standard_error=error,
            adjusted_p=tested["p_value"],
            verdict=Verdict.UNTESTED,
            **tested,
        )

    def _tested(
        self, part: Part, difference: MetricValue, error: MetricValue, degrees: float
    ) -> dict[str, MetricValue]:
        """Interval, p-value and the difference that would be found."""
        if difference.value and is_unvarying(error):
            return _sign_test(difference, error, part)
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


def _sign_test(difference: MetricValue, error: MetricValue, part: Part) -> dict[str, MetricValue]:
    """Of a difference that all rows make alike, as a perfect order makes against none.

    Each row (group) of the class that fewest hold moves the same way; chance does that once in 2^(number - 1) samples.
    """
    p_value = MetricValue.of(2.0 ** (1 - min(part.num_fewest, 1000)))
    return {"low": difference, "high": difference, "p_value": p_value, "detectable": error}


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
        one_class = min(found.num_positives, found.num_rows - found.num_positives) == 0
        too_few = one_class and found.metric not in NUMBER_METRICS
        same = found.difference.value == 0 and not too_few and is_unvarying(found.standard_error)
        return Verdict.IDENTICAL if same else Verdict.UNTESTED
    if found.adjusted_p.value <= 1 - config.level:
        return Verdict.BETTER if found.gain > 0 else Verdict.WORSE
    margin = config.margin_of(found.metric)
    inside = -margin < found.low.value and found.high.value < margin
    return Verdict.EQUIVALENT if inside else Verdict.UNDECIDED
