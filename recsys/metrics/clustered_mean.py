"""A mean with its standard error where rows of one cluster, such as a user, depend on each other."""

import math

import torch
from torch import Tensor

from recsys.metrics.checks import check_weights
from recsys.metrics.value import MetricValue


def clustered_mean(values: Tensor, groups: Tensor, weights: Tensor | None = None) -> tuple[MetricValue, MetricValue]:
    """(Mean by weight, its standard error over samples of groups).

    Args:
        values: (N,), finite.
        groups: (N,), int64: the cluster of each row; rows of one may depend on each other. If every row is one of its
            own, and without weights, the error is the usual sqrt(variance / N).
        weights: (N,), finite and 0 or more.
    Returns:
        Undefined without a row of weight above 0; the error also with fewer than two groups.
    Raises:
        DataError: a weight is impossible.
    Source: Cochran, 1977, "Sampling techniques", section 9A: the mean by weight is a ratio of sums over clusters.
    """
    mass = torch.ones_like(values, dtype=torch.float64) if weights is None else check_weights(weights, values)
    values, groups, mass = values.double()[mass > 0], groups[mass > 0], mass[mass > 0]
    if not values.numel():
        nothing = MetricValue.undefined("there are no rows, or none with a weight above 0")
        return nothing, nothing
    mean = float((mass * values).sum() / mass.sum())
    _, index = torch.unique(groups, return_inverse=True)
    num_groups = int(index.max()) + 1
    if num_groups < 2:
        return MetricValue.of(mean), MetricValue.undefined("there is one group of rows: its error needs two")
    sums = torch.zeros(num_groups, dtype=torch.float64).index_add_(0, index, mass * (values - mean))
    variance = float((sums**2).sum()) * num_groups / (num_groups - 1)
    return MetricValue.of(mean), MetricValue.of(math.sqrt(variance) / float(mass.sum()))
