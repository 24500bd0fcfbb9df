"""Predictions as tensors, checked once; and the metrics of any set of their rows."""

from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.metrics import MetricValue, auc, auc_standard_error, calibration_ratio, log_loss, normalized_entropy
from recsys.metrics.checks import refuse_rows

BAYES_COLUMN = "bayes_probability"
PROBABILITY_TOLERANCE = 1e-3
"""Largest |probability - sigmoid(logit)| taken for rounding; half precision alone makes 2.5e-4."""


@dataclass(frozen=True)
class Scored:
    """N rows: labels (N,), logits (N,), probabilities (N,) and, of generated data, the true log-odds (N,)."""

    labels: Tensor
    logits: Tensor
    probabilities: Tensor
    bayes_logits: Tensor | None

    def take(self, rows: Tensor) -> "Scored":
        """The rows at these positions, int64 (M,)."""
        bayes = None if self.bayes_logits is None else self.bayes_logits[rows]
        return Scored(self.labels[rows], self.logits[rows], self.probabilities[rows], bayes)

    @property
    def num_rows(self) -> int:
        """N."""
        return self.labels.numel()

    @property
    def num_positives(self) -> int:
        """Rows with label 1."""
        return int((self.labels != 0).sum())


def read_scored(predictions: pl.DataFrame) -> Scored:
    """Take the columns `label`, `logit`, `probability` and, where there is one, `bayes_probability`.

    Raises:
        DataError: a column is missing, not numeric, or holds nulls; or a probability is not the sigmoid of its logit.
    """
    logits, probabilities = numeric_column(predictions, "logit"), numeric_column(predictions, "probability")
    gap = (torch.sigmoid(logits.double()) - probabilities.double()).abs()
    num_apart = int((gap > PROBABILITY_TOLERANCE).sum())
    if num_apart:
        first = int((gap > PROBABILITY_TOLERANCE).nonzero()[0, 0])
        raise DataError(
            f"predictions: {num_apart} of {gap.numel()} probabilities differ from sigmoid(logit) by more than "
            f"{PROBABILITY_TOLERANCE}, the first at row {first}: ranking and calibration would speak of two models. "
            "Write both columns from the same output."
        )
    return Scored(numeric_column(predictions, "label"), logits, probabilities, _bayes_logits(predictions))


def _bayes_logits(predictions: pl.DataFrame) -> Tensor | None:
    if BAYES_COLUMN not in predictions.columns:
        return None
    bayes = numeric_column(predictions, BAYES_COLUMN).double()
    refuse_rows(~((bayes >= 0) & (bayes <= 1)), BAYES_COLUMN, "outside [0, 1]", "Write the true probability.")
    return torch.logit(bayes)


def numeric_column(frame: pl.DataFrame, name: str) -> Tensor:
    """One column as a tensor (N,) of its own type.

    Raises:
        DataError: the column is missing, not numeric, or holds nulls.
    """
    if name not in frame.columns:
        raise DataError(f"predictions have no column {name!r}, only {frame.columns}. Write it with the predictions.")
    column = frame[name]
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean) or column.dtype.is_decimal():
        raise DataError(f"predictions column {name!r} is {column.dtype}: a number is needed. Cast it when writing.")
    if column.null_count():
        first = int(column.is_null().arg_max() or 0)
        raise DataError(
            f"predictions column {name!r} holds {column.null_count()} null(s), the first at row {first}. "
            "Every scored row needs a value; drop the row or score it."
        )
    return torch.from_numpy(column.to_numpy(writable=True))


def core_metrics(scored: Scored) -> dict[str, MetricValue]:
    """Ranking, likelihood and calibration of these rows; with true probabilities, also the share of the possible."""
    metrics = {
        "auc": auc(scored.labels, scored.logits),
        "auc_standard_error": auc_standard_error(scored.labels, scored.logits),
        "log_loss": log_loss(scored.labels, scored.logits),
        "normalized_entropy": normalized_entropy(scored.labels, scored.logits),
        "calibration_ratio": calibration_ratio(scored.labels, scored.probabilities),
        "positive_rate": _mean(scored.labels),
        "mean_probability": _mean(scored.probabilities),
    }
    if scored.bayes_logits is not None:
        metrics |= _bayes_metrics(scored.labels, scored.bayes_logits, metrics)
    return metrics


def _bayes_metrics(labels: Tensor, bayes_logits: Tensor, metrics: dict[str, MetricValue]) -> dict[str, MetricValue]:
    best_auc, best_loss = auc(labels, bayes_logits), log_loss(labels, bayes_logits)
    share = best_auc if not best_auc.defined else metrics["auc"]
    if metrics["auc"].value is not None and best_auc.value is not None:
        possible = best_auc.value - 0.5
        share = MetricValue.undefined(f"the best possible AUC is {best_auc.value:.4f}: nothing can be ranked")
        if possible > 0:
            share = MetricValue.of((metrics["auc"].value - 0.5) / possible)
    return {"bayes_auc": best_auc, "bayes_log_loss": best_loss, "share_of_possible_auc": share}


def _mean(values: Tensor) -> MetricValue:
    if values.numel() == 0:
        return MetricValue.undefined("there are no rows")
    return MetricValue.of(float(values.sum(dtype=torch.float64)) / values.numel())
