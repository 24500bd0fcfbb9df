"""Intervals of any metric by resampling users: rows of one user depend on each other, users do not."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import ConfigError, DataError
from recsys.metrics.value import MetricValue

Statistic = Callable[[Tensor], Tensor]
"""A metric as a function of how often each cluster was drawn: int64 (R, C) -> float64 (R,), NaN where undefined."""

ELEMENTS_AT_ONCE = 2**22
"""Replicates times rows (or clusters) that are held at once: 32 MiB an array."""
MAX_UNDEFINED_SHARE = 0.05
"""Of replicates. Beyond it, those with a value speak for other data than the rows."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """The cluster, such as a user, of each of N rows."""

    index: Tensor
    """(N,), int64 in [0, num_clusters)."""
    num_clusters: int

    @classmethod
    def of(cls, groups: Tensor) -> "Clusters":
        """Number the distinct values of groups (N,), integer, in ascending order.

        Raises:
            DataError: groups are not one integer per row.
        """
        if groups.dim() != 1 or groups.is_floating_point():
            raise DataError(
                f"groups have shape {tuple(groups.shape)} and dtype {groups.dtype}: pass one integer per row, such as "
                "the user; for rows that are independent, torch.arange of their number."
            )
        values, index = torch.unique(groups, return_inverse=True)
        return cls(index, values.numel())

    @property
    def num_rows(self) -> int:
        """N."""
        return self.index.numel()


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """A metric on all rows, and what resampling clusters says of it."""

    estimate: MetricValue
    standard_error: MetricValue
    percentile_low: MetricValue  # quantiles of the replicates
    percentile_high: MetricValue
    basic_low: MetricValue  # the same reflected at the estimate, which removes a bias that the replicates share
    basic_high: MetricValue
    p_value: MetricValue  # two-sided, of the metric being 0: the level at which 0 leaves the percentile interval
    num_clusters: int
    num_replicates: int
    num_undefined: int  # replicates in which the metric has no value


def cluster_bootstrap(
    statistics: Mapping[str, Statistic],
    clusters: Clusters,
    *,
    num_replicates: int,
    generator: torch.Generator,
    level: float = 0.95,
) -> dict[str, Bootstrap]:
    """Draw as many clusters as there are, with replacement, again and again, and see how the metrics vary.

    All metrics see the same replicates. So the difference of two models is a paired comparison: `difference`.

    Args:
        statistics: the metrics, by name; see `resampled` for those that exist.
        clusters: of the rows behind the metrics; cluster bootstrap needs tens of them to be right.
        num_replicates: R >= 2; intervals need about 1,000. A p-value is at least 2 / (R + 1).
        generator: what is drawn depends on nothing else (nor on which metrics are asked).
        level: of the intervals, in (0, 1).
    Returns:
        By name. Undefined with fewer than two clusters, or where more than 5% of replicates have no value.
    Raises:
        ConfigError: num_replicates < 2, or level outside (0, 1).
    Source: Efron, 1979, "Bootstrap methods: another look at the jackknife"; Davison and Hinkley, 1997, "Bootstrap
        methods and their application", sections 2.4 (basic), 3.8 (clusters), 5.3 (percentile), 4.4.5 (p-value).
    """
    if num_replicates < 2 or not 0 < level < 1:
        raise ConfigError(
            f"num_replicates={num_replicates}, level={level}: a bootstrap needs 2 replicates or more, better 1000, and "
            "a level in (0, 1), such as 0.95."
        )
    values = {name: torch.empty(0) for name in statistics}
    if clusters.num_clusters >= 2:
        values = _replicates(statistics, clusters, num_replicates, generator)
    once = torch.ones(1, clusters.num_clusters, dtype=torch.int64, device=clusters.index.device)
    return {
        name: _summary(float(statistic(once)) if clusters.num_rows else math.nan, values[name], clusters, level)
        for name, statistic in statistics.items()
    }


def difference(first: Statistic, second: Statistic) -> Statistic:
    """The second metric minus the first, on the same replicate: of two models on the same rows, or of two metrics."""
    return lambda counts: second(counts) - first(counts)


def _replicates(
    statistics: Mapping[str, Statistic], clusters: Clusters, num_replicates: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Values of every statistic in every replicate, float64 (R,)."""
    at_once = max(1, ELEMENTS_AT_ONCE // max(clusters.num_rows, clusters.num_clusters))
    parts: dict[str, list[Tensor]] = {name: [] for name in statistics}
    for start in range(0, num_replicates, at_once):
        counts = _drawn(min(at_once, num_replicates - start), clusters.num_clusters, generator)
        counts = counts.to(clusters.index.device)
        for name, statistic in statistics.items():
            parts[name].append(statistic(counts))
    return {name: torch.cat(values) for name, values in parts.items()}


def _drawn(num_replicates: int, num_clusters: int, generator: torch.Generator) -> Tensor:
    """How often each cluster is drawn, int64 (R, C): rows are multinomial and sum to C."""
    # Integers are drawn in order, so that how many replicates are held at once cannot be seen in them.
    drawn = torch.randint(num_clusters, (num_replicates, num_clusters), generator=generator, device=generator.device)
    drawn += torch.arange(num_replicates, device=drawn.device)[:, None] * num_clusters
    return torch.bincount(drawn.flatten(), minlength=drawn.numel()).view(num_replicates, num_clusters)


def _summary(estimate: float, values: Tensor, clusters: Clusters, level: float) -> Bootstrap:
    present = values[torch.isfinite(values)]
    num_undefined = values.numel() - present.numel()
    reason = ""
    if not math.isfinite(estimate):
        reason = "the metric has no value on all rows" if clusters.num_rows else "there are no rows"
    elif clusters.num_clusters < 2:
        reason = f"there are {clusters.num_clusters} clusters of rows: two are needed, and tens to be right"
    elif num_undefined > MAX_UNDEFINED_SHARE * values.numel():
        reason = f"{num_undefined} of {values.numel()} replicates have no value: there is too little data"
    names = ["standard_error", "percentile_low", "percentile_high", "basic_low", "basic_high", "p_value"]
    if reason:
        results = [MetricValue.undefined(reason)] * len(names)
    else:
        ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64, device=present.device)
        low, high = quantiles(present, ends).tolist()
        error = float(present.std())
        basic = (2 * estimate - high, 2 * estimate - low)
        results = [MetricValue.of(value) for value in (error, low, high, *basic, _p_value(present))]
    return Bootstrap(
        estimate=MetricValue.of(estimate) if math.isfinite(estimate) else MetricValue.undefined(reason),
        num_clusters=clusters.num_clusters,
        num_replicates=values.numel(),
        num_undefined=num_undefined,
        **dict(zip(names, results, strict=True)),
    )


def quantiles(values: Tensor, shares: Tensor) -> Tensor:
    """Quantiles (Q,) of values float64 (R,), R >= 1, at shares float64 (Q,), linear between order statistics."""
    # Not torch.quantile, which refuses more than 2**24 values.
    ascending, place = values.sort().values, shares * (values.numel() - 1)
    below = place.floor().long()
    above = (below + 1).clamp(max=values.numel() - 1)
    return torch.lerp(ascending[below], ascending[above], place - below)


def _p_value(values: Tensor) -> float:
    """Twice the share of replicates on the rarer side of 0, the sample itself counted among them so it is never 0."""
    rarer = min(int((values <= 0).sum()), int((values >= 0).sum()))
    return min(2 * (rarer + 1) / (values.numel() + 1), 1.0)
