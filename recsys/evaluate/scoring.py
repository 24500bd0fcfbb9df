"""`evaluate`: from predictions to every number of the report."""

import logging

import polars as pl
import torch

from recsys.core.errors import DataError
from recsys.evaluate.calibrated import FittedCalibration, judge
from recsys.evaluate.config import EvaluateConfig
from recsys.evaluate.held import HeldRows, check_group_key, gauc_metrics
from recsys.evaluate.intervals import intervals
from recsys.evaluate.policies import check_policy_columns, policy_values
from recsys.evaluate.result import Evaluation, GainCurve, RocCurve, ScoreHistogram, SliceRow
from recsys.evaluate.scored import read_scored, scored_columns
from recsys.evaluate.sliced import check_slices, slice_rows, too_many_rows
from recsys.evaluate.source import Predictions
from recsys.evaluate.statistics import WEIGHTED, Statistics, core_metrics
from recsys.metrics import (
    MetricValue,
    ReliabilityBin,
    ScoreCounts,
    auc_standard_error,
    gain_curve_of,
    reliability_bins_of,
    roc_curve_of,
)

logger = logging.getLogger(__name__)

NUM_CURVE_POINTS = 400
NUM_HISTOGRAM_BINS = 60


def evaluate(
    predictions: pl.DataFrame | Predictions,
    config: EvaluateConfig,
    *,
    calibration: FittedCalibration | None = None,
) -> Evaluation:
    """Compute the metrics of all rows and of every slice.

    Args:
        predictions: one scored row each: `label` (0 or 1), `logit`, `probability` (its sigmoid), the columns that
            `config` names, and optionally `bayes_probability`, the true probability of generated data, and
            `__weight__` (0 or more), how many rows each counts as. From a file,
            there may be more of them than memory holds: `EvaluateConfig.max_rows_in_memory` says what is left out then.
        config: what to compute.
        calibration: a map fitted on other rows, to be judged on these.
    Returns:
        Plain values; a metric without a value says why. Not even an empty frame is an error.
    Raises:
        DataError: a needed column is missing or has NaN, nulls or impossible values.
        ConfigError: `config` names a column that is absent or cannot be used.
    """
    source = Predictions.of(predictions) if isinstance(predictions, pl.DataFrame) else predictions
    everything = read_statistics(source)
    _check_columns(source, config)
    held = _held(source, config)
    metrics = core_metrics(everything, config) | _group_metrics(source, held, everything, config)
    slices = slice_rows(source, everything, held, config)
    _warn_of_one_label(slices)
    logger.info("evaluated %d rows and %d slices: AUC %s", everything.num_rows, len(slices), metrics["auc"])
    counts = everything.counts
    return Evaluation(
        num_rows=everything.num_rows,
        num_positives=everything.num_positives,
        metrics=metrics,
        intervals=intervals(metrics, held, source.num_rows, config),
        reliability=_reliability(counts, config),
        roc=RocCurve.of(*roc_curve_of(counts, num_points=NUM_CURVE_POINTS)),
        gain=GainCurve.of(*gain_curve_of(counts, num_points=NUM_CURVE_POINTS)),
        histogram=_histogram(counts),
        slices=slices,
        calibration=None if calibration is None else judge(calibration, counts, num_bins=config.num_bins),
        policies=policy_values(source, held, config),
        weight=everything.weight,
    )


def _reliability(counts: ScoreCounts, config: EvaluateConfig) -> tuple[ReliabilityBin, ...]:
    """Of whole rows alone: its intervals need to know how many were seen."""
    return () if counts.weighted else tuple(reliability_bins_of(counts.probabilities(), num_bins=config.num_bins))


def _check_columns(source: Predictions, config: EvaluateConfig) -> None:
    check_slices(source, config)
    check_policy_columns(source, config)
    if config.group_key:
        check_group_key(source.schema, config.group_key)


def read_statistics(source: Predictions) -> Statistics:
    """The statistic of all rows, read and checked in parts.

    Raises:
        DataError: a needed column is missing or has NaN, nulls or impossible values.
    """

    def part(number: int, chunk: pl.DataFrame) -> Statistics:
        try:
            return Statistics.of(read_scored(chunk))
        except DataError as error:
            if number == 0:
                raise
            raise DataError(f"rows from {number * source.rows_at_once:,} on, counted from there: {error}") from error

    chunks = source.chunks(scored_columns(source.columns))
    return Statistics.merged(part(number, chunk) for number, chunk in enumerate(chunks))


def _held(source: Predictions, config: EvaluateConfig) -> HeldRows | None:
    """All rows, where something needs them together and they are not too many."""
    resampled = config.num_replicates > 0 and source.num_rows <= config.max_bootstrap_rows
    needed = bool(config.group_key or config.propensity) or resampled
    return HeldRows.of(source, config.group_key) if needed and source.num_rows <= config.max_rows_in_memory else None


def _group_metrics(
    source: Predictions, held: HeldRows | None, everything: Statistics, config: EvaluateConfig
) -> dict[str, MetricValue]:
    """What a `group_key` adds or changes: GAUC, and the AUC's error by group."""
    if not config.group_key:
        return {}
    error = MetricValue.undefined(too_many_rows(source.num_rows, config) if everything.weight is None else WEIGHTED)
    if held is not None and everything.weight is None:
        error = auc_standard_error(held.labels, held.logits, held.clusters.index)
    return {"auc_standard_error": error} | gauc_metrics(source, held, config, total=everything.counts.num_rows)


def _warn_of_one_label(slices: tuple[SliceRow, ...]) -> None:
    for row in slices:
        if row.num_positives in (0, row.num_rows):
            logger.warning(
                "slice %s=%s: all %d rows have label %d, so its AUC is undefined",
                *(row.column, row.value, row.num_rows, int(row.num_positives > 0)),
            )


def _histogram(counts: ScoreCounts) -> ScoreHistogram:
    """Shares of each class in bins of equal width in log-odds; the end bins hold what lies beyond."""
    logits, classes = counts.scores.double(), (counts.negatives, counts.positives)
    ranges = [found for mass in classes if (found := _range(logits, mass)) is not None]
    if not ranges:
        return ScoreHistogram()
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    edges = torch.linspace(low, high, NUM_HISTOGRAM_BINS + 1, dtype=torch.float64)
    bins = torch.bucketize(logits, edges[1:-1], right=True)
    shares = [_shares(bins, mass) for mass in classes]
    return ScoreHistogram(edges=tuple(edges.tolist()), negatives=shares[0], positives=shares[1])


def _range(logits: torch.Tensor, mass: torch.Tensor) -> tuple[float, float] | None:
    """(0.1%, 99.9%) quantiles of the finite logits (S,), ascending, each taken `mass` times; none where none are."""
    kept = torch.isfinite(logits) & (mass > 0)
    values, rows = logits[kept], mass[kept].cumsum(0)
    if not values.numel():
        return None
    if mass.is_floating_point():
        ends = torch.searchsorted(rows, rows[-1] * torch.tensor([0.001, 0.999], dtype=mass.dtype))
    else:
        cut = int(rows[-1]) // 1000
        ends = torch.searchsorted(rows, torch.tensor([cut, int(rows[-1]) - 1 - cut]), right=True)
    return float(values[ends[0]]), float(values[ends[1]])


def _shares(bins: torch.Tensor, mass: torch.Tensor) -> tuple[float, ...]:
    counts = torch.zeros(NUM_HISTOGRAM_BINS, dtype=mass.dtype).index_add_(0, bins, mass)
    return tuple((counts.double() / (mass.sum().item() or 1)).tolist())
