"""`evaluate_numbers`: from predicted numbers, such as stars, to every number of their report."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import ConfigError, DataError
from recsys.core.labels import NUMBER_COLUMNS
from recsys.core.names import WEIGHT
from recsys.evaluate.config import EvaluateConfig
from recsys.evaluate.held import check_group_key, clusters_of
from recsys.evaluate.intervals import SEED, Z
from recsys.evaluate.number_result import NumberEvaluation, NumberSlice, PredictionBin
from recsys.evaluate.result import Interval, Metrics
from recsys.evaluate.scored import numeric_column
from recsys.evaluate.sliced import check_slices, sliced_columns, too_many_rows
from recsys.evaluate.slices import Slicing, fit_slicing
from recsys.evaluate.source import Predictions
from recsys.metrics import (
    Clusters,
    ErrorSums,
    MetricValue,
    cluster_bootstrap,
    clustered_mean,
    mae_of,
    mean_error_of,
    mean_label_of,
    r2_of,
    resampled_errors,
    rmse_of,
)

logger = logging.getLogger(__name__)

RESAMPLED = ("rmse", "mae", "r2", "mean_error")
OF_CLICKS = (
    "gauc_weight", "gain_shares", "calibration", "max_column_auc", "propensity", "target_propensity", "reward",
    "expected_reward", "predicted_reward", "max_weight",
)  # fmt: skip
"""Options that say something of labels of 0 and 1 alone."""


@dataclass(frozen=True, eq=False, kw_only=True)
class NumberRows:
    """N rows: labels, predictions (N,), and where they have any weights (N,)."""

    labels: Tensor
    predictions: Tensor
    weights: Tensor | None

    @classmethod
    def of(cls, frame: pl.DataFrame) -> "NumberRows":
        """The columns `label`, `prediction` and, where there is one, `__weight__`.

        Raises:
            DataError: one is missing, not numeric, or holds nulls.
        """
        labels, predictions = (numeric_column(frame, name) for name in NUMBER_COLUMNS)
        weights = numeric_column(frame, WEIGHT) if WEIGHT in frame.columns else None
        return cls(labels=labels, predictions=predictions, weights=weights)

    def take(self, rows: Tensor) -> "NumberRows":
        """Those of a mask, bool (N,), or at positions, int64 (M,)."""
        weights = None if self.weights is None else self.weights[rows]
        return NumberRows(labels=self.labels[rows], predictions=self.predictions[rows], weights=weights)

    @property
    def sums(self) -> ErrorSums:
        """What metrics need of them."""
        return ErrorSums.of(self.labels, self.predictions, self.weights)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Held:
    """All rows in memory, with the group of each."""

    rows: NumberRows
    clusters: Clusters


def check_number_options(config: EvaluateConfig) -> None:
    """Refuse what would be ignored.

    Raises:
        ConfigError: an option that makes no sense of number labels is not as it is by default.
    """
    plain = EvaluateConfig()
    for name in OF_CLICKS:
        if getattr(config, name) != getattr(plain, name):
            value = getattr(config, name)
            raise ConfigError(
                f"evaluate.{name}={getattr(value, 'value', value)}: this speaks of clicks, and the labels of this data "
                "set are numbers (label_kind number). Leave it out."
            )


def evaluate_numbers(predictions: pl.DataFrame | Predictions, config: EvaluateConfig) -> NumberEvaluation:
    """Compute the metrics of all rows and of every slice.

    Args:
        predictions: one row each: `label`, `prediction`, the columns that `config` names, and optionally `__weight__`
            (0 or more), how many rows each counts as. From a file, there may be more of them than memory holds: then
            what needs them together (intervals, bins of the prediction) is left out, with the reason.
        config: what to compute; `num_bins` are those of the prediction.
    Raises:
        DataError: a needed column is missing or has NaN, nulls or impossible values.
        ConfigError: `config` names a column that is absent or cannot be used, or an option of clicks.
    """
    check_number_options(config)
    source = Predictions.of(predictions) if isinstance(predictions, pl.DataFrame) else predictions
    check_slices(source, config)
    if config.group_key:
        check_group_key(source.schema, config.group_key)
    everything = ErrorSums.merged(NumberRows.of(chunk).sums for chunk in source.chunks(_columns(source)))
    held = _held(source, config)
    found = NumberEvaluation(
        num_rows=source.num_rows,
        metrics=metrics_of(everything),
        intervals=_intervals(held, source.num_rows, config),
        bins=() if held is None else tuple(_bins(held, config)),
        slices=tuple(_slices(source, held, config)),
        weight=everything.weight if WEIGHT in source.columns else None,
    )
    logger.info("evaluated %d rows and %d slices: RMSE %s", source.num_rows, len(found.slices), found.metrics["rmse"])
    return found


def metrics_of(sums: ErrorSums) -> dict[str, MetricValue]:
    """All metrics of rows, by name."""
    mean, error = mean_label_of(sums), mean_error_of(sums)
    found = {"rmse": rmse_of(sums), "mae": mae_of(sums), "r2": r2_of(sums), "mean_error": error, "mean_label": mean}
    if mean.value is None or error.value is None:
        return found | {"mean_prediction": mean, "label_std": mean}
    spread = MetricValue.of(math.sqrt(sums.label_squares / sums.weight))
    return found | {"mean_prediction": MetricValue.of(mean.value + error.value), "label_std": spread}


def _columns(source: Predictions, *more: str) -> list[str]:
    wanted = dict.fromkeys([*NUMBER_COLUMNS, WEIGHT, *more])
    return [name for name in wanted if name in source.columns]


def _held(source: Predictions, config: EvaluateConfig) -> _Held | None:
    if source.num_rows > config.max_rows_in_memory:
        return None
    frame = pl.concat(list(source.chunks(_columns(source, config.group_key))))
    return _Held(rows=NumberRows.of(frame), clusters=clusters_of(frame, config.group_key)[0])


def _unit(config: EvaluateConfig) -> str:
    return f"by {config.group_key}" if config.group_key else "of rows"


def _intervals(held: _Held | None, num_rows: int, config: EvaluateConfig) -> dict[str, Interval]:
    reason = "num_replicates=0 asks for no bootstrap" if config.num_replicates == 0 else ""
    limit = min(config.max_bootstrap_rows, config.max_rows_in_memory)
    if held is None or num_rows > limit:
        reason = f"{num_rows:,} rows are more than max_bootstrap_rows={limit:,}: that many replicates would take long"
    if held is None or reason:
        return dict.fromkeys(RESAMPLED, Interval.undefined(reason))
    rows = held.rows
    found = cluster_bootstrap(
        resampled_errors(held.clusters, rows.labels, rows.predictions, rows.weights),
        held.clusters,
        num_replicates=config.num_replicates,
        generator=torch.Generator().manual_seed(SEED),
    )
    method = f"bootstrap, {_unit(config)}"
    ends = {name: (each.percentile_low, each.percentile_high) for name, each in found.items()}
    return {name: Interval(low=low, high=high, method=method) for name, (low, high) in ends.items()}


def _bins(held: _Held, config: EvaluateConfig) -> Iterator[PredictionBin]:
    """Rows in order of their prediction in bins of about equally many; equal predictions never part."""
    values, index, counts = torch.unique(held.rows.predictions, return_inverse=True, return_counts=True)
    if not values.numel():
        return
    places = (counts.cumsum(0) - counts) * config.num_bins // held.rows.predictions.numel()
    for place in places.unique_consecutive():
        inside = (places == place)[index]
        rows, groups = held.rows.take(inside), held.clusters.index[inside]
        mean, _ = clustered_mean(rows.predictions, groups, rows.weights)
        label, error = clustered_mean(rows.labels, groups, rows.weights)
        if mean.value is None or label.value is None:
            continue
        yield PredictionBin(
            num_rows=int(inside.sum()),
            min_prediction=float(values[places == place][0]),
            max_prediction=float(values[places == place][-1]),
            mean_prediction=mean.value,
            mean_label=label.value,
            label_interval=_around(label, error, f"normal, {_unit(config)}"),
        )


def _around(value: MetricValue, error: MetricValue, method: str) -> Interval:
    """1.96 standard errors either side."""
    if value.value is None or error.value is None:
        return Interval.undefined((value if value.value is None else error).undefined_reason)
    low, high = (MetricValue.of(value.value + sign * Z * error.value) for sign in (-1, 1))
    return Interval(low=low, high=high, method=method)


def _slices(source: Predictions, held: _Held | None, config: EvaluateConfig) -> Iterator[NumberSlice]:
    for name, column, by_day in sliced_columns(config):
        try:
            slicing = fit_slicing((chunk[column] for chunk in source.chunks([column])), config, by_day=by_day)
        except DataError as error:  # hours of scoring are not thrown away for a slice
            yield _undefined(name, "(all)", source.num_rows, str(error))
            continue
        yield from _rows_of_column(source, (name, column, slicing), held, config)


def _rows_of_column(
    source: Predictions, sliced: tuple[str, str, Slicing], held: _Held | None, config: EvaluateConfig
) -> Iterator[NumberSlice]:
    name, column, slicing = sliced
    sums = [ErrorSums()] * len(slicing.names)
    codes: list[Tensor] = []
    for chunk in source.chunks(_columns(source, column)):
        codes.append(slicing.codes(chunk[column]))
        rows = NumberRows.of(chunk)
        sums = [each.plus(rows.take(codes[-1] == code).sums) for code, each in enumerate(sums)]
    everyone = torch.cat(codes)
    sizes = torch.bincount(everyone, minlength=len(slicing.names)).tolist()
    for code, size in enumerate(sizes):
        if size and size < config.min_slice_rows:
            reason = f"only {size} rows, fewer than min_slice_rows={config.min_slice_rows}"
            yield _undefined(name, slicing.names[code], size, reason)
        elif size:
            yield NumberSlice(
                column=name,
                value=slicing.names[code],
                num_rows=size,
                metrics=metrics_of(sums[code]),
                rmse_interval=_rmse_interval(held, everyone == code, config),
            )


def _rmse_interval(held: _Held | None, inside: Tensor, config: EvaluateConfig) -> Interval:
    """Roots of the ends of the mean squared error's."""
    if held is None:
        return Interval.undefined(too_many_rows(inside.numel(), config))
    rows = held.rows.take(inside)
    squared = (rows.predictions.double() - rows.labels.double()) ** 2
    mean, error = clustered_mean(squared, held.clusters.index[inside], rows.weights)
    around = _around(mean, error, f"normal, {_unit(config)}")
    if around.low.value is None or around.high.value is None:
        return around
    low, high = (MetricValue.of(math.sqrt(max(end, 0.0))) for end in (around.low.value, around.high.value))
    return Interval(low=low, high=high, method=around.method)


def _undefined(name: str, value: str, num_rows: int, reason: str) -> NumberSlice:
    nothing: Metrics = dict.fromkeys(metrics_of(ErrorSums()), MetricValue.undefined(reason))
    return NumberSlice(
        column=name, value=value, num_rows=num_rows, metrics=nothing, rmse_interval=Interval.undefined(reason)
    )
