"""The cluster bootstrap: each metric on repeated rows, intervals against scipy, and coverage where users matter."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from recsys.core.errors import ConfigError, DataError
from recsys.metrics import (
    Binning,
    Clusters,
    GroupedCounts,
    GroupWeight,
    MetricValue,
    ScoreCounts,
    average_precision_of,
    bootstrap,
    brier_score,
    calibration_error,
    calibration_ratio,
    cluster_bootstrap,
    difference,
    gain_of,
    gauc_of,
    kolmogorov_smirnov_of,
    log_loss,
    normalized_entropy,
    relative_information_gain,
    resampled_average_precision,
    resampled_brier_score,
    resampled_calibration_error,
    resampled_calibration_ratio,
    resampled_gain,
    resampled_gauc,
    resampled_kolmogorov_smirnov,
    resampled_log_loss,
    resampled_normalized_entropy,
    resampled_relative_information_gain,
    resampled_sums,
)


def average_precision(labels: Tensor, scores: Tensor, weights: Tensor | None) -> MetricValue:
    return average_precision_of(ScoreCounts.from_rows(labels, scores, weights))


def kolmogorov_smirnov(labels: Tensor, scores: Tensor, weights: Tensor | None) -> MetricValue:
    return kolmogorov_smirnov_of(ScoreCounts.from_rows(labels, scores, weights))


def gain(labels: Tensor, scores: Tensor, weights: Tensor | None) -> MetricValue:
    return gain_of(ScoreCounts.from_rows(labels, scores, weights), share=0.3)


def equal_width_error(labels: Tensor, probabilities: Tensor, weights: Tensor | None) -> MetricValue:
    return calibration_error(labels, probabilities, weights, num_bins=7, binning=Binning.EQUAL_WIDTH).error


def by_sigmoid(function: Callable[..., object]) -> Callable[..., object]:
    return lambda *arguments: function(*arguments[:-2], torch.sigmoid(arguments[-2].double()), arguments[-1])


METRICS: dict[str, tuple[Callable[..., object], Callable[..., object]]] = {
    "average_precision": (resampled_average_precision, average_precision),
    "kolmogorov_smirnov": (resampled_kolmogorov_smirnov, kolmogorov_smirnov),
    "gain": (partial(resampled_gain, share=0.3), gain),
    "calibration_error": (
        by_sigmoid(partial(resampled_calibration_error, num_bins=7, binning=Binning.EQUAL_WIDTH)),
        by_sigmoid(equal_width_error),
    ),
    "log_loss": (resampled_log_loss, log_loss),
    "relative_information_gain": (resampled_relative_information_gain, relative_information_gain),
    "normalized_entropy": (resampled_normalized_entropy, normalized_entropy),
    "brier_score": (by_sigmoid(resampled_brier_score), by_sigmoid(brier_score)),
    "calibration_ratio": (by_sigmoid(resampled_calibration_ratio), by_sigmoid(calibration_ratio)),
}


def drawn(num_rows: int = 200, levels: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_rows)
    labels = (torch.rand(num_rows, generator=generator) < 0.3).long()
    logits = ((torch.randn(num_rows, generator=generator) + labels) * levels).round() / levels
    users = torch.randint(0, max(num_rows // 8, 1), (num_rows,), generator=generator) * 2**40 - 2**41
    weights = torch.rand(num_rows, generator=generator, dtype=torch.float64)
    return labels, logits, users, torch.where(weights < 0.3, 0.0, weights)


def value(result: object) -> float:
    assert isinstance(result, MetricValue)
    return result.value_or(math.nan)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("num_rows", [1, 3, 200])
def test_a_replicate_has_the_metric_of_its_rows_repeated(name: str, weighted: bool, num_rows: int) -> None:
    labels, logits, users, weights = drawn(num_rows)
    statistic, metric = METRICS[name]
    clusters = Clusters.of(users)
    counts = torch.randint(0, 3, (6, clusters.num_clusters), generator=seeded())
    counts[0], counts[1] = 1, 0
    got = statistic(clusters, labels, logits, weights if weighted else None)(counts)  # type: ignore[operator]
    for replicate, row_counts in zip(got.tolist(), counts[:, clusters.index], strict=True):
        repeated = [values.repeat_interleave(row_counts) for values in (labels, logits, weights)]
        expected = value(metric(*repeated[:2], repeated[2] if weighted else None))
        assert replicate == pytest.approx(expected, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("weighting", list(GroupWeight))
@pytest.mark.parametrize("weighted", [False, True])
def test_a_user_drawn_twice_is_two_groups(weighting: GroupWeight, weighted: bool) -> None:
    labels, logits, users, weights = drawn()
    clusters = Clusters.of(users)
    counts = torch.randint(0, 3, (5, clusters.num_clusters), generator=seeded())
    counts[0] = 0
    mass = weights if weighted else None
    got = resampled_gauc(clusters, labels, logits, mass, weighting=weighting)(counts).tolist()
    for replicate, row_counts in zip(got, counts[:, clusters.index], strict=True):
        repeated = [v.repeat_interleave(row_counts) for v in (labels, logits, clusters.index, weights)]
        starts = torch.arange(row_counts.sum()) - (row_counts.cumsum(0) - row_counts).repeat_interleave(row_counts)
        groups = repeated[2] * 3 + starts
        rows = GroupedCounts.from_rows(repeated[0], repeated[1], groups, repeated[3] if weighted else None)
        expected = gauc_of(rows, weighting=weighting).auc.value_or(math.nan)
        assert replicate == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_a_row_of_weight_zero_changes_nothing_however_wrong() -> None:
    labels, logits, clusters = torch.tensor([0, 1, 0]), torch.tensor([math.inf, 0.5, -0.5]), torch.tensor([0, 0, 1])
    statistic = resampled_log_loss(Clusters.of(clusters), labels, logits, torch.tensor([0.0, 1.0, 2.0]))
    expected = log_loss(labels[1:], logits[1:], torch.tensor([1.0, 2.0])).value
    assert statistic(torch.ones(1, 2, dtype=torch.int64)).item() == pytest.approx(expected)


def test_equal_mass_bins_stay_those_of_all_rows() -> None:
    labels, logits, users, weights = drawn()
    clusters, probabilities = Clusters.of(users), torch.sigmoid(logits)
    for mass in (None, weights):
        statistic = resampled_calibration_error(
            clusters, labels, probabilities, mass, num_bins=5, binning=Binning.EQUAL_MASS
        )
        once = torch.ones(1, clusters.num_clusters, dtype=torch.int64)
        expected = calibration_error(labels, probabilities, mass, num_bins=5, binning=Binning.EQUAL_MASS).error.value
        assert statistic(once).item() == pytest.approx(expected) and statistic(once * 2).item() == pytest.approx(
            expected
        )


def test_any_function_of_weighted_rows_can_be_resampled() -> None:
    labels, _, users, weights = drawn()
    clusters = Clusters.of(users)
    columns = torch.stack([weights * labels, weights], dim=1)
    by_sums = resampled_sums(clusters, columns, lambda sums: sums[:, 0] / sums[:, 1])

    def by_rows(counts: Tensor) -> Tensor:
        mass = counts[:, clusters.index] * weights
        return (mass * labels).sum(1) / mass.sum(1)

    got = cluster_bootstrap({"sums": by_sums, "rows": by_rows}, clusters, num_replicates=50, generator=seeded())
    assert got["sums"].standard_error.value == pytest.approx(got["rows"].standard_error.value, rel=1e-12)


def test_intervals_are_quantiles_of_the_replicates_and_their_reflection() -> None:
    rows = torch.randn(40, generator=seeded(3), dtype=torch.float64) + 0.3
    clusters = Clusters.of(torch.arange(40))
    columns = torch.stack([rows, torch.ones_like(rows)], dim=1)
    statistic = resampled_sums(clusters, columns, lambda sums: sums[:, 0] / sums[:, 1])
    got = cluster_bootstrap({"mean": statistic}, clusters, num_replicates=2000, generator=seeded(), level=0.9)["mean"]
    generator = seeded()
    means = rows[torch.randint(40, (2000, 40), generator=generator)].mean(1).numpy()
    low, high = np.quantile(means, [0.05, 0.95])
    mean = rows.mean().item()
    assert (got.percentile_low.value, got.percentile_high.value) == pytest.approx((low, high), rel=1e-12)
    assert (got.basic_low.value, got.basic_high.value) == pytest.approx((2 * mean - high, 2 * mean - low), rel=1e-12)
    assert got.standard_error.value == pytest.approx(means.std(ddof=1), rel=1e-12)
    assert got.estimate.value == pytest.approx(mean) and (got.num_clusters, got.num_replicates) == (40, 2000)
    rarer = min((means <= 0).sum(), (means >= 0).sum())
    assert got.p_value.value == pytest.approx(2 * (rarer + 1) / 2001)
    reference = scipy.stats.bootstrap((rows.numpy(),), np.mean, method="percentile", confidence_level=0.9, rng=1)
    assert got.percentile_low.value == pytest.approx(reference.confidence_interval.low, abs=0.02)
    assert got.standard_error.value == pytest.approx(reference.standard_error, rel=0.05)


def test_what_is_drawn_depends_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, logits, users, _ = drawn()
    clusters = Clusters.of(users)
    both = {
        "precision": resampled_average_precision(clusters, labels, logits),
        "loss": resampled_log_loss(clusters, labels, logits),
    }
    got = cluster_bootstrap(both, clusters, num_replicates=37, generator=seeded())
    assert got == cluster_bootstrap(both, clusters, num_replicates=37, generator=seeded())
    alone = cluster_bootstrap({"precision": both["precision"]}, clusters, num_replicates=37, generator=seeded())
    assert got["precision"] == alone["precision"]
    assert got != cluster_bootstrap(both, clusters, num_replicates=37, generator=seeded(1))
    monkeypatch.setattr(bootstrap, "ELEMENTS_AT_ONCE", 1)
    one_by_one = cluster_bootstrap(both, clusters, num_replicates=37, generator=seeded())
    assert one_by_one["precision"].standard_error.value == pytest.approx(
        got["precision"].standard_error.value, rel=1e-12
    )


def test_every_replicate_draws_as_many_clusters_as_there_are() -> None:
    counts = bootstrap._drawn(5000, 7, seeded())
    assert torch.equal(counts.sum(1), torch.full((5000,), 7))
    assert counts.double().mean(0).sub(1).abs().max() < 0.06
    assert counts.double().var(0).sub(6 / 7).abs().max() < 0.08


def test_the_interval_by_user_covers_and_the_one_by_row_does_not() -> None:
    generator, covered, by_row = seeded(8), 0, 0
    for trial in range(60):
        taste = torch.randn(40, generator=generator, dtype=torch.float64).repeat_interleave(10)
        rows = taste + torch.randn(400, generator=generator, dtype=torch.float64)
        for groups in (torch.arange(400) // 10, torch.arange(400)):
            clusters = Clusters.of(groups)
            columns = torch.stack([rows, torch.ones_like(rows)], dim=1)
            mean = resampled_sums(clusters, columns, lambda sums: sums[:, 0] / sums[:, 1])
            got = cluster_bootstrap({"mean": mean}, clusters, num_replicates=100, generator=seeded(trial))["mean"]
            inside = got.percentile_low.value_or(1) <= 0 <= got.percentile_high.value_or(-1)
            covered, by_row = (
                covered + (inside and clusters.num_clusters == 40),
                by_row + (inside and clusters.num_clusters == 400),
            )
    assert covered >= 49  # 95% nominal, about 92% of 40 clusters: 55 of 60, 3 standard deviations are 6
    assert by_row <= 48  # 60%: 36, 3 standard deviations are 12


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    labels, logits, users, _ = drawn(400)
    clusters = Clusters.of(users)
    noisy = logits + 0.1 * torch.randn(400, generator=seeded())
    first, second = (resampled_average_precision(clusters, labels, scores) for scores in (logits, noisy))
    got = cluster_bootstrap(
        {"first": first, "second": second, "gap": difference(first, second), "none": difference(first, first)},
        clusters,
        num_replicates=300,
        generator=seeded(),
    )
    expected = value(average_precision(labels, noisy, None)) - value(average_precision(labels, logits, None))
    assert got["gap"].estimate.value == pytest.approx(expected, rel=1e-12)
    assert got["gap"].standard_error.value_or(1) < 0.3 * got["first"].standard_error.value_or(0)
    assert (got["none"].p_value.value, got["none"].standard_error.value) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("labels", "logits", "users", "reason"),
    [
        ([], [], [], "there are no rows"),
        ([0, 1], [0.1, 0.2], [5, 5], "there are 1 clusters of rows: two are needed, and tens to be right"),
        ([0, 0], [0.1, 0.2], [5, 6], "the metric has no value on all rows"),
        ([0, 1], [0.1, 0.2], [5, 6], "replicates have no value: there is too little data"),
    ],
)
def test_without_an_interval_there_is_a_reason(
    labels: list[int], logits: list[float], users: list[int], reason: str
) -> None:
    clusters = Clusters.of(torch.tensor(users, dtype=torch.int64))
    statistic = resampled_average_precision(clusters, torch.tensor(labels), torch.tensor(logits))
    got = cluster_bootstrap({"precision": statistic}, clusters, num_replicates=100, generator=seeded())["precision"]
    assert reason in got.percentile_low.undefined_reason and reason in got.p_value.undefined_reason
    assert got.estimate.defined == (len(set(labels)) == 2)


def test_unusable_input_is_refused_by_name() -> None:
    clusters = Clusters.of(torch.tensor([1, 2]))
    with pytest.raises(DataError, match="one integer per row"):
        Clusters.of(torch.tensor([0.5]))
    with pytest.raises(DataError, match=r"labels have shape \(3,\), clusters are of 2 rows"):
        resampled_average_precision(clusters, torch.zeros(3), torch.zeros(3))
    with pytest.raises(DataError, match="NaN"):
        resampled_log_loss(clusters, torch.zeros(2), torch.tensor([0.0, math.nan]))
    with pytest.raises(ConfigError, match="share=0"):
        resampled_gain(clusters, torch.zeros(2), torch.zeros(2), share=0)
    for num_replicates, level in [(1, 0.95), (100, 0.0), (100, 1.0)]:
        with pytest.raises(ConfigError, match="num_replicates="):
            cluster_bootstrap({}, clusters, num_replicates=num_replicates, generator=seeded(), level=level)
