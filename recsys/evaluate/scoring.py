"""`evaluate`: from a frame of predictions to every number of the report."""

import logging

import polars as pl
import torch

from recsys.core.errors import ConfigError
from recsys.evaluate.config import EvaluateConfig
from recsys.evaluate.result import Evaluation, RocCurve, ScoreHistogram, SliceRow
from recsys.evaluate.scored import Scored, core_metrics, read_scored
from recsys.evaluate.slices import iterate_slices
from recsys.metrics import MetricValue, gauc, reliability_bins, roc_curve

logger = logging.getLogger(__name__)

NUM_ROC_POINTS = 400
NUM_HISTOGRAM_BINS = 60


def evaluate(predictions: pl.DataFrame, config: EvaluateConfig) -> Evaluation:
    """Compute the metrics of all rows and of every slice.

    Args:
        predictions: one scored row each: `label` (0 or 1), `logit`, `probability` (its sigmoid), the columns that
            `config` names, and optionally `bayes_probability`, the true probability of generated data.
        config: what to compute.
    Returns:
        Plain values; a metric without a value says why. Not even an empty frame is an error.
    Raises:
        DataError: a needed column is missing or has NaN, nulls or impossible values.
        ConfigError: `config` names a column that is absent or cannot be used.
    """
    scored = read_scored(predictions)
    metrics = core_metrics(scored) | (_grouped(predictions, scored, config.group_key) if config.group_key else {})
    false_rate, true_rate = roc_curve(scored.labels, scored.logits, num_points=NUM_ROC_POINTS)
    slices = tuple(row for column in config.slices for row in _slice_rows(predictions, scored, column, config))
    _warn_of_one_label(slices)
    logger.info("evaluated %d rows and %d slices: AUC %s", scored.num_rows, len(slices), metrics["auc"])
    return Evaluation(
        num_rows=scored.num_rows,
        num_positives=scored.num_positives,
        metrics=metrics,
        reliability=tuple(reliability_bins(scored.labels, scored.probabilities, num_bins=config.num_bins)),
        roc=RocCurve(false_rate=tuple(false_rate.tolist()), true_rate=tuple(true_rate.tolist())),
        histogram=_histogram(scored),
        slices=slices,
    )


def _slice_rows(frame: pl.DataFrame, scored: Scored, column: str, config: EvaluateConfig) -> list[SliceRow]:
    rows = []
    for value, positions in iterate_slices(frame, column, config):
        part = scored.take(positions)
        metrics = core_metrics(part)
        if part.num_rows < config.min_slice_rows:
            reason = f"only {part.num_rows} rows, fewer than min_slice_rows={config.min_slice_rows}"
            metrics = dict.fromkeys(metrics, MetricValue.undefined(reason))
        rows.append(
            SliceRow(
                column=column, value=value, num_rows=part.num_rows, num_positives=part.num_positives, metrics=metrics
            )
        )
    return rows


def _warn_of_one_label(slices: tuple[SliceRow, ...]) -> None:
    for row in slices:
        if row.num_positives in (0, row.num_rows):
            logger.warning(
                "slice %s=%s: all %d rows have label %d, so its AUC is undefined",
                *(row.column, row.value, row.num_rows, int(row.num_positives > 0)),
            )


def _grouped(frame: pl.DataFrame, scored: Scored, group_key: str) -> dict[str, MetricValue]:
    """GAUC and its coverage. Rows without a key belong to no group: pooled, they would be one huge false user."""
    if group_key not in frame.columns:
        raise ConfigError(f"evaluate.group_key: no column {group_key!r} in the predictions, only {frame.columns}.")
    keys = frame[group_key]
    if keys.dtype.is_nested():
        raise ConfigError(f"evaluate.group_key: column {group_key!r} is {keys.dtype}; a group needs one value per row.")
    present = torch.from_numpy(keys.is_not_null().to_numpy(writable=True))
    keys = keys if keys.dtype.is_integer() else keys.cast(pl.String)
    groups = torch.from_numpy(keys.drop_nulls().rank("dense").to_numpy(writable=True).astype("int64"))
    result = gauc(scored.labels[present], scored.logits[present], groups)
    share = MetricValue.undefined("there are no rows")
    if scored.num_rows:
        share = MetricValue.of(result.num_rows_used / scored.num_rows)
    return {
        "gauc": result.auc,
        "gauc_groups": MetricValue.of(result.num_groups),
        "gauc_groups_used": MetricValue.of(result.num_groups_used),
        "gauc_row_share": share,
    }


def _histogram(scored: Scored) -> ScoreHistogram:
    """Shares of each class in bins of equal width in log-odds; the end bins hold what lies beyond."""
    logits = scored.logits.double()
    ranges = [_range(logits[scored.labels == label]) for label in (0, 1)]
    if not any(ranges):
        return ScoreHistogram()
    low, high = min(r[0] for r in ranges if r), max(r[1] for r in ranges if r)
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    edges = torch.linspace(low, high, NUM_HISTOGRAM_BINS + 1, dtype=torch.float64)
    bins = torch.bucketize(logits, edges[1:-1], right=True)
    shares = [_shares(bins[scored.labels == label]) for label in (0, 1)]
    return ScoreHistogram(edges=tuple(edges.tolist()), negatives=shares[0], positives=shares[1])


def _range(logits: torch.Tensor) -> tuple[float, float] | None:
    """(0.1%, 99.9%) quantiles of the finite values of (N,); none where there are none."""
    ascending = logits[torch.isfinite(logits)].sort().values
    cut = ascending.numel() // 1000
    return (float(ascending[cut]), float(ascending[-1 - cut])) if ascending.numel() else None


def _shares(bins: torch.Tensor) -> tuple[float, ...]:
    counts = torch.bincount(bins, minlength=NUM_HISTOGRAM_BINS).double()
    return tuple((counts / max(bins.numel(), 1)).tolist())
