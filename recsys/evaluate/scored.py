"""Predictions as tensors, checked once."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.core.labels import PREDICTION_COLUMNS
from recsys.core.names import WEIGHT
from recsys.metrics.checks import check_probabilities, refuse_rows

BAYES_COLUMN = "bayes_probability"
PROBABILITY_TOLERANCE = 1e-3
"""Largest |probability - sigmoid(logit)| taken for rounding; half precision alone makes 2.5e-4."""


@dataclass(frozen=True)
class Scored:
    """N rows: labels (N,), logits (N,), probabilities (N,); of generated data the true log-odds (N,); weights (N,)."""

    labels: Tensor
    logits: Tensor
    probabilities: Tensor
    bayes_logits: Tensor | None
    weights: Tensor | None = None  # None: all rows count alike

    def take(self, rows: Tensor) -> "Scored":
        """The rows at these positions, int64 (M,)."""
        bayes = None if self.bayes_logits is None else self.bayes_logits[rows]
        weights = None if self.weights is None else self.weights[rows]
        return Scored(self.labels[rows], self.logits[rows], self.probabilities[rows], bayes, weights)


def read_scored(predictions: pl.DataFrame) -> Scored:
    """Take the columns `label`, `logit`, `probability` and, where there are such, `bayes_probability`, `__weight__`.

    Raises:
        DataError: a column is missing, not numeric, or holds nulls; or a probability is not the sigmoid of its logit,
            or no probability.
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
    check_probabilities(probabilities)
    weights = numeric_column(predictions, WEIGHT) if WEIGHT in predictions.columns else None
    return Scored(numeric_column(predictions, "label"), logits, probabilities, _bayes_logits(predictions), weights)


def scored_columns(columns: Sequence[str]) -> list[str]:
    """Those of `columns` that `read_scored` takes."""
    return [name for name in (*PREDICTION_COLUMNS, BAYES_COLUMN, WEIGHT) if name in columns]


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
