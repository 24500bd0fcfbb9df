"""Weights, sufficient statistics, Brier score, information gain, calibration error: against scikit-learn and loops."""

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

from recsys.core.errors import ConfigError, DataError
from recsys.metrics import (
    Binning,
    MetricValue,
    ScoreCounts,
    brier_score,
    brier_score_of,
    calibration_error,
    calibration_error_of,
    calibration_ratio,
    calibration_ratio_of,
    log_loss,
    log_loss_of,
    normalized_entropy,
    normalized_entropy_of,
    relative_information_gain,
    relative_information_gain_of,
    reliability_bins_of,
)
from recsys.metrics.probability import label_entropy
from recsys.metrics.reliability import calibration_bins

Rows = Callable[[Tensor, Tensor, Tensor | None], MetricValue]
Counts = Callable[[ScoreCounts], MetricValue]


def of_probabilities(metric: Rows) -> Rows:
    return lambda labels, logits, weights: metric(labels, torch.sigmoid(logits.double()), weights)


PAIRS: list[tuple[Rows, Counts]] = [
    (log_loss, log_loss_of),
    (normalized_entropy, normalized_entropy_of),
    (relative_information_gain, relative_information_gain_of),
    (of_probabilities(brier_score), brier_score_of),
    (of_probabilities(calibration_ratio), calibration_ratio_of),
]


def drawn(dtype: torch.dtype = torch.float64, levels: int = 10**6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(levels)
    logits = (torch.randn(4000, generator=generator, dtype=torch.float64) * 2 - 2).clamp(-12, 12)
    logits = ((logits * levels).round() / levels).to(dtype)
    labels = torch.rand(4000, generator=generator) < torch.sigmoid(logits.float() * 0.7)
    weights = torch.rand(4000, generator=generator, dtype=torch.float64) * 2
    return labels, logits, torch.where(weights < 0.4, 0.0, weights)


def test_weighted_values_equal_scikit_learn() -> None:
    labels, logits, weights = drawn()
    probabilities = torch.sigmoid(logits)
    y, p, w = labels.numpy(), probabilities.numpy(), weights.numpy()
    assert log_loss(labels, logits, weights).value == pytest.approx(sklearn_log_loss(y, p, sample_weight=w), rel=1e-12)
    expected = brier_score_loss(y, p, sample_weight=w)
    assert brier_score(labels, probabilities, weights).value == pytest.approx(expected, rel=1e-12)
    assert brier_score(labels, probabilities).value == pytest.approx(brier_score_loss(y, p), rel=1e-12)
    rate = float((weights * labels).sum() / weights.sum())
    base = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    entropy = normalized_entropy(labels, logits, weights).value_or(0)
    assert entropy == pytest.approx(log_loss(labels, logits, weights).value_or(0) / base, rel=1e-12)
    assert relative_information_gain(labels, logits, weights).value == pytest.approx(1 - entropy, abs=1e-12)
    expected = float((weights * probabilities).sum() / (weights * labels).sum())
    assert calibration_ratio(labels, probabilities, weights).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [1, 10**6])
def test_counts_give_the_values_of_their_rows(weighted: bool, dtype: torch.dtype, levels: int) -> None:
    labels, logits, weights = drawn(dtype, levels)
    mass = weights if weighted else None
    files = [
        ScoreCounts.from_rows(labels[rows], logits[rows], None if mass is None else mass[rows])
        for rows in (slice(0, 1000), slice(1000, 4000))
    ]
    for of_rows, of_counts in PAIRS:
        assert of_counts(files[0].merged(files[1])).value == pytest.approx(of_rows(labels, logits, mass).value)


@pytest.mark.parametrize(
    ("labels", "logits", "weights"),
    [
        ([], [], None),
        ([0, 0], [0.5, -0.5], None),
        ([1], [3.0], None),
        ([0, 1], [0.5, -0.5], [0.0, 0.0]),
        ([0, 1, 0], [0.5, math.inf, -math.inf], None),
        ([0, 1, 0], [math.inf, 0.5, -0.5], None),
        ([0, 1, 0], [math.inf, 0.5, -0.5], [0.0, 1.0, 2.0]),
        ([0, 1, 0], [math.inf, 0.5, -0.5], [1.5, 1.0, 2.0]),
        ([0, 1, 0], [-800.0, 800.0, 0.0], None),
        ([1, 0], [0.0, -0.0], None),
    ],
)
def test_counts_and_rows_agree_on_adversarial_input(
    labels: list[int], logits: list[float], weights: list[float] | None
) -> None:
    mass = None if weights is None else torch.tensor(weights)
    tensors = torch.tensor(labels), torch.tensor(logits)
    for of_rows, of_counts in PAIRS:
        row_value, count_value = of_rows(*tensors, mass), of_counts(ScoreCounts.from_rows(*tensors, mass))
        assert row_value.undefined_reason == count_value.undefined_reason
        assert row_value.value_or(-1.0) == pytest.approx(count_value.value_or(-1.0), rel=1e-15)


def test_a_row_of_weight_zero_changes_nothing_however_wrong() -> None:
    labels, logits, weights = torch.tensor([0, 1, 0]), torch.tensor([math.inf, 0.5, -0.5]), torch.tensor([0.0, 1, 2])
    for of_rows, _ in PAIRS:
        assert of_rows(labels, logits, weights) == of_rows(labels[1:], logits[1:], weights[1:])


def test_entropy_of_a_class_of_next_to_no_weight() -> None:
    assert label_entropy(1e-20, 1.0) == pytest.approx(1e-20 * (1 + 20 * math.log(10)), rel=1e-12)
    assert label_entropy(3, 1) == label_entropy(1, 3) == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    got = normalized_entropy(torch.tensor([0, 1]), torch.zeros(2), torch.tensor([1e300, 1e-300], dtype=torch.float64))
    assert "rounds to 0" in got.undefined_reason


@pytest.mark.parametrize("metric", [brier_score, calibration_ratio])
@pytest.mark.parametrize("wrong", [-0.1, 1.5, math.inf])
def test_what_is_no_probability_is_refused(metric: Rows, wrong: float) -> None:
    with pytest.raises(DataError, match=r"probabilities: 1 of 2 value\(s\) outside \[0, 1\], the first at row 1"):
        metric(torch.tensor([0, 1]), torch.tensor([0.5, wrong]), None)


def slow_error(labels: list[int], values: list[float], weights: list[float], bins: list[int]) -> float:
    """Guo et al.'s form: over bins, weight times |mean label - mean prediction|."""
    total, error = math.fsum(weights), 0.0
    for chosen in set(bins):
        rows = [r for r, b in enumerate(bins) if b == chosen and weights[r]]
        mass = math.fsum(weights[r] for r in rows)
        gap = math.fsum(weights[r] * (labels[r] - values[r]) for r in rows) / mass if rows else 0.0
        error += mass / total * abs(gap)
    return error


EDGES = [0.0, 0.1, 0.2, 0.3, 0.6, 0.7, 0.7000000000000001, 0.9, 0.9999999999999999, 1.0, 5e-324, -0.0]


@pytest.mark.parametrize("num_bins", [1, 3, 7, 10, 15])
@pytest.mark.parametrize("weighted", [False, True])
def test_equal_width_bins_put_edges_where_the_fractions_do(num_bins: int, weighted: bool) -> None:
    labels = [0, 1] * 6
    weights = [1.0, 2.0, 0.0, 0.5] * 3 if weighted else [1.0] * 12
    # The edge k / B is the float64 next to it, as in a file that says 0.7.
    edges = [Fraction(k / num_bins) for k in range(num_bins)]
    bins = [max(k for k, edge in enumerate(edges) if Fraction(value) >= edge) for value in EDGES]
    got = calibration_error(
        torch.tensor(labels),
        torch.tensor(EDGES, dtype=torch.float64),
        torch.tensor(weights) if weighted else None,
        num_bins=num_bins,
        binning=Binning.EQUAL_WIDTH,
    )
    assert got.error.value == pytest.approx(slow_error(labels, EDGES, weights, bins), abs=1e-15)
    assert (got.num_bins, got.num_bins_used) == (num_bins, len({b for b, w in zip(bins, weights, strict=True) if w}))


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_equal_width_error_equals_torchmetrics(num_bins: int) -> None:
    labels, logits, _ = drawn()
    probabilities = torch.sigmoid(logits)
    got = calibration_error(labels, probabilities, num_bins=num_bins, binning=Binning.EQUAL_WIDTH).error.value
    assert got == pytest.approx(binary_calibration_error(probabilities, labels.int(), num_bins).item(), abs=1e-6)


@pytest.mark.parametrize("levels", [1, 10**6])
def test_equal_mass_error_is_that_of_the_reliability_curve(levels: int) -> None:
    labels, logits, weights = drawn(levels=levels)
    probabilities = torch.sigmoid(logits)
    curve = reliability_bins_of(ScoreCounts.from_rows(labels, probabilities), num_bins=12)
    expected = sum(b.count * abs(b.observed_rate - b.mean_prediction) for b in curve) / 4000
    got = calibration_error(labels, probabilities, num_bins=12, binning=Binning.EQUAL_MASS)
    assert got.error.value == pytest.approx(expected, abs=1e-14) and got.num_bins_used == len(curve)
    times = (weights * 2).round().long()
    repeated = labels.repeat_interleave(times), probabilities.repeat_interleave(times)
    assert calibration_error(
        labels, probabilities, times, num_bins=12, binning=Binning.EQUAL_MASS
    ).error.value == pytest.approx(
        calibration_error(*repeated, num_bins=12, binning=Binning.EQUAL_MASS).error.value, abs=1e-14
    )


@pytest.mark.parametrize("num_bins", [1, 2, 3, 7])
def test_bins_of_counts_are_those_of_sorted_rows(num_bins: int) -> None:
    for levels in (1, 4, 50):
        rows = (
            torch.randint(0, levels + 1, (40,), generator=torch.Generator().manual_seed(levels)).div(levels).sort()[0]
        )
        counts = ScoreCounts.from_rows(torch.zeros(40), rows)
        bins = calibration_bins(counts, num_bins, Binning.EQUAL_MASS)
        first = torch.searchsorted(rows, rows)  # place of the first of a row's equals
        assert torch.equal(bins.repeat_interleave(counts.negatives), first * num_bins // 40)


def test_reliability_of_counts_of_logits_is_that_of_rows() -> None:
    labels, logits, weights = drawn(torch.float32)
    counts = ScoreCounts.from_rows(labels, logits).probabilities()
    by_rows = reliability_bins_of(ScoreCounts.from_rows(labels, torch.sigmoid(logits.double())), num_bins=9)
    assert reliability_bins_of(counts, num_bins=9) == by_rows
    with pytest.raises(DataError, match="whole rows"):
        reliability_bins_of(ScoreCounts.from_rows(labels, logits, weights).probabilities(), num_bins=9)


@pytest.mark.parametrize("binning", list(Binning))
def test_calibration_error_without_rows_has_a_reason(binning: Binning) -> None:
    none, zero = torch.empty(0), torch.zeros(3)
    got = calibration_error(none, none, num_bins=4, binning=binning)
    assert got.error.undefined_reason == "there are no rows" and got.num_bins_used == 0
    got = calibration_error(zero, zero, zero, num_bins=4, binning=binning)
    assert got.error.undefined_reason == "no row has a weight above 0"
    assert calibration_error(zero, zero, num_bins=4, binning=binning).error.value == 0.0
    with pytest.raises(ConfigError, match="num_bins=0"):
        calibration_error(zero, zero, num_bins=0, binning=binning)
    with pytest.raises(DataError, match="outside"):
        calibration_error_of(ScoreCounts.from_rows(zero, zero - 2), num_bins=4, binning=binning)
