"""Metrics of predicted numbers as functions of how often each cluster of rows was drawn, for `cluster_bootstrap`."""

import math

import torch
from torch import Tensor

from recsys.metrics.bootstrap import Clusters, Statistic
from recsys.metrics.checks import check_weights
from recsys.metrics.errors import checked_errors
from recsys.metrics.resampled import resampled_sums

WEIGHT, ERROR, ABSOLUTE, SQUARED, LABEL, LABEL_SQUARED = range(6)
"""Columns of the sums."""


def resampled_errors(
    clusters: Clusters, labels: Tensor, predictions: Tensor, weights: Tensor | None = None
) -> dict[str, Statistic]:
    """`rmse`, `mae`, `r2` and `mean_error` of resampled rows, by name; arguments and errors as `ErrorSums.of`."""
    errors = checked_errors(labels, predictions)
    mass = torch.ones_like(errors) if weights is None else check_weights(weights, labels)
    # From the mean of all rows: squares of labels far from 0 would leave their spread no digits.
    known = labels.double() - labels.double().mean() if labels.numel() else labels.double()
    values = torch.stack([torch.ones_like(errors), errors, errors.abs(), errors**2, known, known**2], dim=1)
    columns = mass[:, None] * values
    return {
        "rmse": resampled_sums(clusters, columns, lambda sums: _mean(sums, SQUARED).sqrt()),
        "mae": resampled_sums(clusters, columns, lambda sums: _mean(sums, ABSOLUTE)),
        "r2": resampled_sums(clusters, columns, _r2),
        "mean_error": resampled_sums(clusters, columns, lambda sums: _mean(sums, ERROR)),
    }


def _mean(sums: Tensor, column: int) -> Tensor:
    return torch.where(sums[:, WEIGHT] > 0, sums[:, column] / sums[:, WEIGHT], math.nan)


def _r2(sums: Tensor) -> Tensor:
    spread = _mean(sums, LABEL_SQUARED) - _mean(sums, LABEL) ** 2
    # What is left of equal labels is rounding noise.
    some = spread > 1e-12 * _mean(sums, LABEL_SQUARED)
    return torch.where(some, 1 - _mean(sums, SQUARED) / spread, math.nan)
