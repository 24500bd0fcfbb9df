"""Paired errors: how a difference between methods would vary over other samples of the same kind of rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import torch
from torch import Tensor

from recsys.evaluate.compare_config import CompareConfig, Metric
from recsys.metrics import (
    AucComparison,
    Clusters,
    GroupedCounts,
    GroupWeight,
    MetricValue,
    ScoreCounts,
    Statistic,
    auc,
    average_precision_of,
    calibration_ratio,
    cluster_bootstrap,
    compare_auc,
    difference,
    gauc_of,
    log_loss,
    mae,
    normalized_entropy,
    resampled_average_precision,
    resampled_calibration_ratio,
    resampled_errors,
    resampled_gauc,
    resampled_log_loss,
    resampled_normalized_entropy,
    rmse,
)

FEWEST = 10
"""Positives, negatives and groups of each below which nothing is tested: errors are then guesses themselves."""

NOTHING = 1e-12
"""Share of the size of a metric below which an error is rounding, so that the difference does not vary."""

Contrast = tuple[tuple[int, ...], tuple[int, ...]]
"""Numbers of the baseline's and of a candidate's runs."""


@dataclass(frozen=True, eq=False)
class Part:
    """N rows that every run scored."""

    labels: Tensor
    """(N,), int64, each 0 or 1."""
    logits: tuple[Tensor, ...]
    """By run, (N,), floating point."""
    groups: Tensor | None
    """(N,), int64: rows of one group may depend on each other; None: all are independent."""
    gauc_weight: GroupWeight = GroupWeight.IMPRESSIONS
    """What a group counts in GAUC."""

    def take(self, rows: Tensor) -> "Part":
        """The rows at these positions, int64 (M,)."""
        groups = None if self.groups is None else self.groups[rows]
        return replace(self, labels=self.labels[rows], logits=tuple(x[rows] for x in self.logits), groups=groups)

    @property
    def num_rows(self) -> int:
        """N."""
        return self.labels.numel()

    @property
    def num_positives(self) -> int:
        """Rows with label 1."""
        return int((self.labels == 1).sum())

    @cached_property
    def clusters(self) -> Clusters:
        """Groups of dependent rows."""
        return Clusters.of(torch.arange(self.num_rows) if self.groups is None else self.groups)

    @cached_property
    def num_fewest(self) -> int:
        """Groups that hold the class which fewest groups hold."""
        index = self.clusters.index
        return min(int(torch.unique(index[self.labels == label]).numel()) for label in (0, 1))

    @property
    def too_few(self) -> str:
        """Why nothing can be tested on these rows; empty where it can."""
        if self.num_fewest >= FEWEST:
            return ""
        what = "rows" if self.groups is None else "groups"
        counts = [torch.unique(self.clusters.index[self.labels == label]).numel() for label in (1, 0)]
        return f"{counts[0]} {what} hold positives and {counts[1]} negatives; {FEWEST} of each are needed for a test"

    def value(self, metric: Metric, run: int) -> MetricValue:
        """A metric of one run."""
        labels, logits = self.labels, self.logits[run]
        if metric is Metric.AUC:
            return auc(labels, logits)
        if metric is Metric.GAUC:
            counts = GroupedCounts.from_rows(labels, logits, self.clusters.index)
            return gauc_of(counts, weighting=self.gauc_weight).auc
        if metric is Metric.AVERAGE_PRECISION:
            return average_precision_of(ScoreCounts.from_rows(labels, logits))
        if metric is Metric.CALIBRATION:
            ratio = self.calibration_ratio(run)
            return ratio if ratio.value is None else MetricValue.of(abs(ratio.value - 1))
        return (log_loss if metric is Metric.LOG_LOSS else normalized_entropy)(labels, logits)

    def calibration_ratio(self, run: int) -> MetricValue:
        """Mean prediction over mean label of one run."""
        return calibration_ratio(self.labels, torch.sigmoid(self.logits[run].double()))

    def statistic(self, metric: Metric, run: int) -> Statistic:
        """A metric of one run as the bootstrap takes it."""
        clusters, labels, logits = self.clusters, self.labels, self.logits[run]
        if metric is Metric.CALIBRATION:
            ratio = resampled_calibration_ratio(clusters, labels, torch.sigmoid(logits.double()))
            return lambda counts: (ratio(counts) - 1).abs()
        if metric is Metric.GAUC:
            return resampled_gauc(clusters, labels, logits, weighting=self.gauc_weight)
        makers = {
            Metric.AVERAGE_PRECISION: resampled_average_precision,
            Metric.LOG_LOSS: resampled_log_loss,
            Metric.NORMALIZED_ENTROPY: resampled_normalized_entropy,
        }
        return makers[metric](clusters, labels, logits)


class NumberPart(Part):
    """N rows whose labels, (N,), float64, are numbers; in the place of logits stand predictions."""

    @cached_property
    def num_fewest(self) -> int:
        """Groups."""
        return self.clusters.num_clusters

    @property
    def too_few(self) -> str:
        """Why nothing can be tested on these rows; empty where it can."""
        if self.num_fewest >= FEWEST:
            return ""
        what = "rows" if self.groups is None else "groups"
        return f"there are {self.num_fewest} {what}; {FEWEST} are needed for a test"

    def value(self, metric: Metric, run: int) -> MetricValue:
        """A metric of one run."""
        return (rmse if metric is Metric.RMSE else mae)(self.labels, self.logits[run])

    def calibration_ratio(self, run: int) -> MetricValue:
        """Of clicks alone."""
        return MetricValue.undefined("labels are numbers")

    def statistic(self, metric: Metric, run: int) -> Statistic:
        """A metric of one run as the bootstrap takes it."""
        return resampled_errors(self.clusters, self.labels, self.logits[run])[metric.value]


def row_errors(
    part: Part, contrasts: Sequence[Contrast], metrics: Sequence[Metric], config: CompareConfig
) -> dict[tuple[int, Metric], MetricValue]:
    """Standard error of candidate minus baseline, means over their runs, by number of the contrast and metric.

    AUC: DeLong, by group; the others: cluster bootstrap, all on the same replicates. Undefined with its reason.
    """
    keys = [(number, metric) for number in range(len(contrasts)) for metric in metrics]
    if part.too_few:
        return dict.fromkeys(keys, MetricValue.undefined(part.too_few))
    areas, errors = _Areas(part), {}
    if Metric.AUC in metrics:
        errors = {(number, Metric.AUC): areas.error(contrast) for number, contrast in enumerate(contrasts)}
    others = [metric for metric in metrics if metric is not Metric.AUC]
    if part.num_rows > config.max_bootstrap_rows:
        reason = f"{part.num_rows:,} rows, more than compare.max_bootstrap_rows={config.max_bootstrap_rows:,}"
        return errors | dict.fromkeys([key for key in keys if key[1] in others], MetricValue.undefined(reason))
    return errors | _bootstrapped(part, contrasts, others, config)


class _Areas:
    """Errors of differences of AUC, from DeLong's covariances of pairs of runs."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._compared = cache(self._compare)

    def _compare(self, first: int, second: int) -> AucComparison:
        logits = self._part.logits
        return compare_auc(self._part.labels, logits[first], logits[second], groups=self._part.groups)

    def error(self, contrast: Contrast) -> MetricValue:
        """Standard error of the difference of the mean AUCs of two methods."""
        baseline, candidate = contrast
        if len(baseline) == len(candidate) == 1:
            return self._compared(baseline[0], candidate[0]).standard_error
        weights = {run: -1 / len(baseline) for run in baseline} | {run: 1 / len(candidate) for run in candidate}
        variance = scale = 0.0
        for first, a in weights.items():
            for second, b in weights.items():
                found = self._compared(min(first, second), max(first, second)).covariance
                if found.value is None:
                    return found
                variance += a * b * found.value
                scale += abs(a * b * found.value)
        if variance <= NOTHING * scale:
            return MetricValue.undefined("the difference does not vary over rows")
        return MetricValue.of(variance**0.5)


def _bootstrapped(
    part: Part, contrasts: Sequence[Contrast], metrics: Sequence[Metric], config: CompareConfig
) -> dict[tuple[int, Metric], MetricValue]:
    statistics: dict[str, Statistic] = {}
    keys: dict[str, tuple[int, Metric]] = {}
    for metric in metrics:
        runs = {run for contrast in contrasts for side in contrast for run in side}
        of_run = {run: _remembered(part.statistic(metric, run)) for run in runs}
        for number, (baseline, candidate) in enumerate(contrasts):
            name = f"{metric.value} {number}"
            first, second = (_mean([of_run[run] for run in side]) for side in (baseline, candidate))
            statistics[name], keys[name] = difference(first, second), (number, metric)
    generator = torch.Generator().manual_seed(config.seed)
    found = cluster_bootstrap(
        statistics, part.clusters, num_replicates=config.num_replicates, generator=generator, level=config.level
    )
    return {keys[name]: _varying(result.standard_error) for name, result in found.items()}


def _varying(error: MetricValue) -> MetricValue:
    """Rounding is no error: without it, a difference of 1e-17 would be many errors away from 0."""
    if error.value is not None and error.value <= NOTHING:
        return MetricValue.undefined("the difference does not vary over rows")
    return error


def _remembered(statistic: Statistic) -> Statistic:
    """The same, computed once for each batch of replicates: the baseline stands in every contrast."""
    last: list[Tensor] = []

    def remembered(counts: Tensor) -> Tensor:
        if not last or last[0] is not counts:
            last[:] = [counts, statistic(counts)]
        return last[1]

    return remembered


def _mean(statistics: Sequence[Statistic]) -> Statistic:
    return lambda counts: torch.stack([statistic(counts) for statistic in statistics]).mean(0)
