"""Quality of predicted numbers: RMSE, MAE, R², mean error. Exact, in float64.

`ErrorSums` add up over files and slices; functions that end in `_of` take them, the others take rows.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.metrics.checks import check_weights, refuse_rows
from recsys.metrics.value import MetricValue

NO_ROWS = "there are no rows, or none with a weight above 0"


@dataclass(frozen=True, kw_only=True)
class ErrorSums:
    """What metrics need of rows; sums are by weight, over rows with a weight above 0."""

    weight: float = 0.0  # of all rows; without weights, their number
    error: float = 0.0  # of prediction - label
    absolute: float = 0.0
    squared: float = 0.0
    mean_label: float = 0.0
    label_squares: float = 0.0  # of label - mean_label
    low: float = math.inf  # least label
    high: float = -math.inf

    @classmethod
    def of(cls, labels: Tensor, predictions: Tensor, weights: Tensor | None = None) -> "ErrorSums":
        """Of rows.

        Args:
            labels, predictions: (N,), finite.
            weights: (N,), finite and 0 or more: how many rows each stands for; without, each for itself.
        Raises:
            DataError: shapes differ, or a value is not finite or impossible.
        """
        errors = checked_errors(labels, predictions)
        mass = torch.ones_like(errors) if weights is None else check_weights(weights, labels)
        errors, mass, known = errors[mass > 0], mass[mass > 0], labels.double()[mass > 0]
        if not errors.numel():
            return cls()
        weight = float(mass.sum())
        mean = float((mass * known).sum()) / weight
        return cls(
            weight=weight,
            error=float((mass * errors).sum()),
            absolute=float((mass * errors.abs()).sum()),
            squared=float((mass * errors**2).sum()),
            mean_label=mean,
            label_squares=float((mass * (known - mean) ** 2).sum()),
            low=float(known.min()),
            high=float(known.max()),
        )

    def plus(self, other: "ErrorSums") -> "ErrorSums":
        """Of the rows of both.

        Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
        """
        weight = self.weight + other.weight
        if not weight:
            return self
        delta, share = other.mean_label - self.mean_label, other.weight / weight
        return ErrorSums(
            weight=weight,
            error=self.error + other.error,
            absolute=self.absolute + other.absolute,
            squared=self.squared + other.squared,
            mean_label=self.mean_label + delta * share,
            label_squares=self.label_squares + other.label_squares + delta * delta * self.weight * share,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
        )

    @staticmethod
    def merged(parts: Iterable["ErrorSums"]) -> "ErrorSums":
        """Of the rows of all parts."""
        total = ErrorSums()
        for part in parts:
            total = total.plus(part)
        return total


def checked_errors(labels: Tensor, predictions: Tensor) -> Tensor:
    """Prediction minus label, float64 (N,).

    Raises:
        DataError: shapes differ, or a value is not finite.
    """
    if labels.dim() != 1 or labels.shape != predictions.shape:
        raise DataError(
            f"labels have shape {tuple(labels.shape)} and predictions {tuple(predictions.shape)}: metrics compare one "
            "label with one prediction per row. Pass two one-dimensional tensors of equal length."
        )
    refuse_rows(~torch.isfinite(labels.double()), "labels", "not finite", "Leave such rows out at ingest.")
    fix = "Look for a diverged training run or a missing input."
    refuse_rows(~torch.isfinite(predictions.double()), "predictions", "not finite", fix)
    return predictions.double() - labels.double()


def rmse(labels: Tensor, predictions: Tensor, weights: Tensor | None = None) -> MetricValue:
    """Root of the mean squared error, in the label's units; arguments and errors as `ErrorSums.of`."""
    return rmse_of(ErrorSums.of(labels, predictions, weights))


def mae(labels: Tensor, predictions: Tensor, weights: Tensor | None = None) -> MetricValue:
    """Mean absolute error, in the label's units; arguments and errors as `ErrorSums.of`."""
    return mae_of(ErrorSums.of(labels, predictions, weights))


def r2(labels: Tensor, predictions: Tensor, weights: Tensor | None = None) -> MetricValue:
    """1 - squared errors over those of predicting these rows' own mean label: 1 is perfect, 0 is that mean's.

    Arguments and errors as `ErrorSums.of`. Of the same rows it orders predictions as -RMSE does.
    """
    return r2_of(ErrorSums.of(labels, predictions, weights))


def mean_error(labels: Tensor, predictions: Tensor, weights: Tensor | None = None) -> MetricValue:
    """Mean of prediction - label: above 0 predicts too much; arguments and errors as `ErrorSums.of`."""
    return mean_error_of(ErrorSums.of(labels, predictions, weights))


def rmse_of(sums: ErrorSums) -> MetricValue:
    """`rmse` of the rows behind the sums; undefined without rows."""
    mean = _mean(sums, sums.squared)
    return mean if mean.value is None else MetricValue.of(math.sqrt(mean.value))


def mae_of(sums: ErrorSums) -> MetricValue:
    """`mae` of the rows behind the sums; undefined without rows."""
    return _mean(sums, sums.absolute)


def mean_error_of(sums: ErrorSums) -> MetricValue:
    """`mean_error` of the rows behind the sums; undefined without rows."""
    return _mean(sums, sums.error)


def mean_label_of(sums: ErrorSums) -> MetricValue:
    """Mean label of the rows behind the sums; undefined without rows."""
    return _mean(sums, sums.mean_label * sums.weight)


def r2_of(sums: ErrorSums) -> MetricValue:
    """`r2` of the rows behind the sums; undefined without rows, and where all labels are equal."""
    if not sums.weight:
        return MetricValue.undefined(NO_ROWS)
    if not (sums.low < sums.high and sums.label_squares > 0):
        return MetricValue.undefined(f"all labels are {sums.low:g}, so there is no spread to explain")
    return MetricValue.of(1 - sums.squared / sums.label_squares)


def _mean(sums: ErrorSums, total: float) -> MetricValue:
    return MetricValue.of(total / sums.weight) if sums.weight else MetricValue.undefined(NO_ROWS)
