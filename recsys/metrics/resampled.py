"""Metrics as functions of how often each cluster of rows was drawn, for `cluster_bootstrap`.

What depends on rows only through sums is summed by cluster once, so a replicate costs its clusters; what ranks rows is
sorted once, so a replicate costs its rows. Undefined is NaN here: a replicate has no one to tell why.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from recsys.core.errors import DataError
from recsys.metrics.bootstrap import Clusters, Statistic
from recsys.metrics.checks import check_labels, check_probabilities, check_weights
from recsys.metrics.grouped import GroupedCounts, GroupWeight
from recsys.metrics.probability import row_losses
from recsys.metrics.ranking import check_share
from recsys.metrics.reliability import Binning, calibration_bins
from recsys.metrics.score_counts import ScoreCounts, exactly_comparable, run_ends


def resampled_sums(clusters: Clusters, columns: Tensor, finish: Callable[[Tensor], Tensor]) -> Statistic:
    """A metric that depends on its rows only through sums of K columns.

    Args:
        clusters: of N rows.
        columns: (N, K), of each row what it adds to each sum; its weight multiplied in.
        finish: the metric of sums float64 (R, K), float64 (R,), NaN where undefined.
    Raises:
        DataError: columns are not of N rows.
    """
    _check_rows(clusters, columns, "columns")
    sums = torch.zeros(clusters.num_clusters, columns.shape[1], dtype=torch.float64, device=columns.device)
    sums.index_add_(0, clusters.index, columns.double())
    return lambda counts: finish(counts.double() @ sums)


def resampled_log_loss(clusters: Clusters, labels: Tensor, logits: Tensor, weights: Tensor | None = None) -> Statistic:
    """`log_loss` of resampled rows; the arguments as there. No value where a row is certain of the wrong label."""
    columns = _loss_columns(clusters, labels, logits, weights)
    return resampled_sums(clusters, columns, lambda sums: sums[:, 0] / (sums[:, 1] + sums[:, 2]))


def resampled_normalized_entropy(
    clusters: Clusters, labels: Tensor, logits: Tensor, weights: Tensor | None = None
) -> Statistic:
    """`normalized_entropy` of resampled rows; the arguments as for `log_loss`."""

    def finish(sums: Tensor) -> Tensor:
        rates = sums[:, 1:] / sums[:, 1:].sum(1, keepdim=True)
        entropy = torch.special.entr(rates).sum(1)
        return torch.where(entropy > 0, sums[:, 0] / sums[:, 1:].sum(1) / entropy, math.nan)

    return resampled_sums(clusters, _loss_columns(clusters, labels, logits, weights), finish)


def resampled_relative_information_gain(
    clusters: Clusters, labels: Tensor, logits: Tensor, weights: Tensor | None = None
) -> Statistic:
    """`relative_information_gain` of resampled rows; the arguments as for `log_loss`."""
    entropy = resampled_normalized_entropy(clusters, labels, logits, weights)
    return lambda counts: 1 - entropy(counts)


def resampled_brier_score(
    clusters: Clusters, labels: Tensor, probabilities: Tensor, weights: Tensor | None = None
) -> Statistic:
    """`brier_score` of resampled rows; the arguments as there."""
    positive, mass = _checked(clusters, labels, probabilities, weights)
    check_probabilities(probabilities)
    columns = torch.stack([mass * (probabilities.double() - positive.double()) ** 2, mass], dim=1)
    return resampled_sums(clusters, columns, lambda sums: sums[:, 0] / sums[:, 1])


def resampled_calibration_ratio(
    clusters: Clusters, labels: Tensor, probabilities: Tensor, weights: Tensor | None = None
) -> Statistic:
    """`calibration_ratio` of resampled rows; the arguments as there."""
    positive, mass = _checked(clusters, labels, probabilities, weights)
    check_probabilities(probabilities)
    columns = torch.stack([mass * probabilities.double(), mass * positive], dim=1)
    return resampled_sums(
        clusters, columns, lambda sums: torch.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], math.nan)
    )


def resampled_gauc(
    clusters: Clusters,
    labels: Tensor,
    scores: Tensor,
    weights: Tensor | None = None,
    *,
    weighting: GroupWeight = GroupWeight.IMPRESSIONS,
) -> Statistic:
    """`gauc_of` with the clusters themselves as groups: a cluster drawn twice is two groups."""
    _checked(clusters, labels, scores, weights)
    counts = GroupedCounts.from_rows(labels, scores, clusters.index, weights)
    groups, area, positives, negatives = counts.by_group()
    used = ~torch.isnan(area)
    sizes = {GroupWeight.IMPRESSIONS: positives + negatives, GroupWeight.CLICKS: positives}
    size = torch.where(used, sizes.get(weighting, torch.ones_like(positives)).double(), 0.0)
    sums = torch.zeros(clusters.num_clusters, 2, dtype=torch.float64, device=area.device)
    sums[groups] = torch.stack([size * torch.where(used, area, 0.0), size], dim=1)

    def statistic(drawn: Tensor) -> Tensor:
        total = drawn.double() @ sums
        return total[:, 0] / total[:, 1]  # 0 / 0 is the NaN of no usable group

    return statistic


def resampled_auc(clusters: Clusters, labels: Tensor, scores: Tensor, weights: Tensor | None = None) -> Statistic:
    """`auc` of resampled rows; the arguments as there. Without weights DeLong's error says the same, sooner."""
    from_the_top = _from_the_top(clusters, labels, scores, weights)

    def statistic(counts: Tensor) -> Tensor:
        rows, positives = from_the_top(counts)
        negatives = rows - positives
        # Of each score's negatives: the positives above them, and half of those beside them.
        above = (torch.diff(negatives, dim=1) * (positives[:, 1:] + positives[:, :-1])).sum(1) / 2
        return above / (positives[:, -1] * negatives[:, -1])

    return statistic


def resampled_average_precision(
    clusters: Clusters, labels: Tensor, scores: Tensor, weights: Tensor | None = None
) -> Statistic:
    """`average_precision_of` resampled rows; the arguments as for `auc`."""
    from_the_top = _from_the_top(clusters, labels, scores, weights)

    def statistic(counts: Tensor) -> Tensor:
        rows, positives = from_the_top(counts)
        # Before the first row that was drawn, precision is 0 / 0, and nothing is found there.
        precision = (positives / rows)[:, 1:].nan_to_num(0.0)
        return (torch.diff(positives, dim=1) * precision).sum(1) / positives[:, -1]

    return statistic


def resampled_kolmogorov_smirnov(
    clusters: Clusters, labels: Tensor, scores: Tensor, weights: Tensor | None = None
) -> Statistic:
    """`kolmogorov_smirnov_of` resampled rows; the arguments as for `auc`."""
    from_the_top = _from_the_top(clusters, labels, scores, weights)

    def statistic(counts: Tensor) -> Tensor:
        rows, positives = from_the_top(counts)
        negatives = rows - positives
        return (positives / positives[:, -1:] - negatives / negatives[:, -1:]).abs().amax(1)

    return statistic


def resampled_gain(
    clusters: Clusters, labels: Tensor, scores: Tensor, weights: Tensor | None = None, *, share: float
) -> Statistic:
    """`gain_of` resampled rows at a share of rows in (0, 1]; lift is this over `share`, and so are its intervals.

    Raises:
        ConfigError: share outside (0, 1]. DataError: as `auc`.
    """
    check_share(share)
    from_the_top = _from_the_top(clusters, labels, scores, weights)

    def statistic(counts: Tensor) -> Tensor:
        rows, positives = from_the_top(counts)
        cut = share * rows[:, -1:]
        last = torch.searchsorted(rows, cut).clamp(min(1, rows.shape[1] - 1), rows.shape[1] - 1)
        first = (last - 1).clamp(min=0)
        part = ((cut - rows.gather(1, first)) / (rows.gather(1, last) - rows.gather(1, first))).clamp(max=1)
        found = torch.lerp(positives.gather(1, first), positives.gather(1, last), part)
        return found[:, 0] / positives[:, -1]

    return statistic


def resampled_calibration_error(
    clusters: Clusters,
    labels: Tensor,
    probabilities: Tensor,
    weights: Tensor | None = None,
    *,
    num_bins: int,
    binning: Binning,
) -> Statistic:
    """`calibration_error` of resampled rows, in the bins of all rows.

    Replicates add noise to a number that noise makes larger: take the basic interval, which is reflected.
    """
    positive, mass = _checked(clusters, labels, probabilities, weights)
    check_probabilities(probabilities)
    counts = ScoreCounts.from_rows(labels, probabilities, weights)
    bins = calibration_bins(counts, num_bins, binning)
    # A row of weight 0 may lie beyond all that count; whichever bin it gets, it adds nothing.
    place = torch.searchsorted(counts.scores, exactly_comparable(probabilities))
    bins = bins[place.clamp(max=bins.numel() - 1)] if bins.numel() else torch.zeros_like(place)
    gaps = torch.zeros(clusters.num_clusters * num_bins, dtype=torch.float64, device=mass.device)
    gaps.index_add_(0, clusters.index * num_bins + bins, mass * (probabilities.double() - positive.double()))
    rows = torch.zeros(clusters.num_clusters, dtype=torch.float64, device=mass.device)
    rows.index_add_(0, clusters.index, mass)
    gaps = gaps.view(clusters.num_clusters, num_bins)
    return lambda drawn: (drawn.double() @ gaps).abs().sum(1) / (drawn.double() @ rows)


def _from_the_top(
    clusters: Clusters, labels: Tensor, scores: Tensor, weights: Tensor | None
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Of counts (R, C): (rows, positives) among the k highest of S distinct scores, float64 (R, S + 1), k = 0 first."""
    positive, mass = _checked(clusters, labels, scores, weights)
    descending, order = torch.sort(exactly_comparable(scores), descending=True)
    ends = run_ends(descending)
    index, mass, found = clusters.index[order], mass[order], positive[order].double()

    def from_the_top(counts: Tensor) -> tuple[Tensor, Tensor]:
        rows = counts[:, index] * mass
        return pad(rows.cumsum(1)[:, ends], (1, 0)), pad((rows * found).cumsum(1)[:, ends], (1, 0))

    return from_the_top


def _loss_columns(clusters: Clusters, labels: Tensor, logits: Tensor, weights: Tensor | None) -> Tensor:
    """(N, 3): weighted loss, weight of a positive, weight of a negative."""
    positive, mass = _checked(clusters, labels, logits, weights)
    losses = row_losses(torch.where(positive, logits.double(), -logits.double()))
    weighted = torch.where(mass > 0, mass * losses, 0.0)  # no 0 * inf of a row that is not there
    return torch.stack([weighted, mass * positive, mass * ~positive], dim=1)


def _checked(clusters: Clusters, labels: Tensor, values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """(mask of positives, weights float64), (N,) both."""
    _check_rows(clusters, labels, "labels")
    return check_labels(labels, values, "values"), _mass(clusters, weights)


def _mass(clusters: Clusters, weights: Tensor | None) -> Tensor:
    if weights is None:
        return torch.ones_like(clusters.index, dtype=torch.float64)
    return check_weights(weights, clusters.index)


def _check_rows(clusters: Clusters, rows: Tensor, name: str) -> None:
    if rows.shape[:1] != clusters.index.shape:
        raise DataError(f"{name} have shape {tuple(rows.shape)}, clusters are of {clusters.num_rows} rows: one each.")
