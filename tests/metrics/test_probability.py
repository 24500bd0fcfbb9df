"""Log loss, normalised entropy, calibration and reliability against scikit-learn and hand-computed values."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics
import torch
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import binary_calibration_error

from recsys.core.errors import ConfigError, DataError
from recsys.metrics import (
    MetricValue,
    ReliabilityBin,
    ScoreCounts,
    calibration_ratio,
    log_loss,
    normalized_entropy,
    reliability_bins_of,
    wilson_interval,
)

Metric = Callable[[torch.Tensor, torch.Tensor], MetricValue]


def reliability_bins(labels: torch.Tensor, probabilities: torch.Tensor, *, num_bins: int) -> list[ReliabilityBin]:
    return reliability_bins_of(ScoreCounts.from_rows(labels, probabilities), num_bins=num_bins)


@pytest.mark.parametrize("scale", [0.01, 1.0, 8.0])
def test_log_loss_equals_scikit_learn(scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(30_000, generator=generator, dtype=torch.float64) * scale
    logits = logits.clamp(-14, 14)  # beyond that the reference, which takes probabilities, has lost digits
    labels = (torch.rand(30_000, generator=generator) < 0.1).float()
    expected = sklearn.metrics.log_loss(labels.numpy(), torch.sigmoid(logits).numpy())
    assert log_loss(labels, logits).value == pytest.approx(expected, rel=1e-9)


def test_log_loss_of_extreme_logits_is_not_clipped() -> None:
    labels = torch.tensor([0, 1, 0, 1])
    assert log_loss(labels, torch.tensor([800.0, -800.0, -800.0, 800.0])).value == 400.0
    assert log_loss(labels, torch.tensor([-math.inf, math.inf, -math.inf, math.inf])).value == 0.0
    assert log_loss(labels, torch.tensor([-40.0, 40.0, -40.0, 40.0])).value == pytest.approx(math.exp(-40), rel=1e-12)


def test_log_loss_of_certain_and_wrong_rows_is_undefined_not_infinite() -> None:
    got = log_loss(torch.tensor([0, 1, 1]), torch.tensor([math.inf, 0.0, -math.inf]))
    assert got.undefined_reason == "2 row(s) are certain of the wrong label, so the loss is infinite"


def test_log_loss_is_computed_and_averaged_in_float64() -> None:
    logits = torch.full((2**18,), 3.0)
    logits[0] = -1000.0
    exact = (1000 + (2**18 - 1) * math.log1p(math.exp(-3))) / 2**18
    assert log_loss(torch.ones_like(logits), logits).value == pytest.approx(exact, rel=1e-13)


def test_normalized_entropy_of_the_base_rate_is_one() -> None:
    labels = torch.tensor([1, 0, 0, 0, 0])
    base = torch.full((5,), math.log(0.2 / 0.8), dtype=torch.float64)
    assert normalized_entropy(labels, base).value == pytest.approx(1.0, abs=1e-12)
    assert normalized_entropy(labels, torch.tensor([9.0, -9.0, -9.0, -9.0, -9.0])).value_or(1.0) < 0.01


def test_calibration_ratio_by_hand() -> None:
    assert calibration_ratio(torch.tensor([1, 0, 0, 1]), torch.tensor([0.5, 0.25, 0.25, 0.5])).value == 0.75


@pytest.mark.parametrize("metric", [log_loss, normalized_entropy, calibration_ratio])
def test_no_rows_is_undefined(metric: Metric) -> None:
    assert metric(torch.empty(0), torch.empty(0)).undefined_reason == "there are no rows"


@pytest.mark.parametrize("metric", [log_loss, normalized_entropy, calibration_ratio])
def test_nan_is_refused(metric: Metric) -> None:
    with pytest.raises(DataError, match="1 of 2 value"):
        metric(torch.tensor([0, 1]), torch.tensor([0.5, math.nan]))


def test_one_class() -> None:
    negatives, logits = torch.zeros(3), torch.zeros(3)
    assert log_loss(negatives, logits).value == pytest.approx(math.log(2))
    assert normalized_entropy(negatives, logits).undefined_reason == "all 3 labels are 0"
    assert calibration_ratio(negatives, torch.full((3,), 0.5)).undefined_reason == "all 3 labels are 0"
    assert calibration_ratio(torch.ones(4), torch.full((4,), 0.5)).value == 0.5


def test_metric_value_holds_a_finite_number_or_a_reason() -> None:
    assert MetricValue.of(math.nan).undefined_reason and MetricValue.of(math.inf).undefined_reason
    assert MetricValue.undefined("no rows").value_or(0.5) == 0.5
    assert str(MetricValue.of(0.5)) == "0.500000" and str(MetricValue.undefined("no rows")) == "undefined (no rows)"
    for value, reason in [(None, ""), (0.5, "why")]:
        with pytest.raises(AssertionError):
            MetricValue(value, reason)


def test_reliability_equals_scikit_learn_where_predictions_differ() -> None:
    generator = torch.Generator().manual_seed(5)
    probabilities = torch.rand(10_000, generator=generator, dtype=torch.float64) ** 3
    labels = torch.rand(10_000, generator=generator, dtype=torch.float64) < probabilities
    bins = reliability_bins(labels, probabilities, num_bins=20)
    rates, predictions = calibration_curve(labels.numpy(), probabilities.numpy(), n_bins=20, strategy="quantile")
    assert [b.count for b in bins] == [500] * 20
    assert np.allclose([b.observed_rate for b in bins], rates, atol=1e-12)
    assert np.allclose([b.mean_prediction for b in bins], predictions, atol=1e-12)
    weighted_gap = sum(b.count * abs(b.observed_rate - b.mean_prediction) for b in bins) / 10_000
    reference = binary_calibration_error(probabilities, labels.int(), n_bins=1000, norm="l1").item()
    assert weighted_gap < reference  # finer equal-width bins only add noise to a calibrated predictor


def test_reliability_bins_partition_the_rows_and_never_split_a_tie() -> None:
    for values in itertools.product([0.1, 0.5, 0.9], repeat=5):
        probabilities, labels = torch.tensor(values), torch.tensor([0, 1, 0, 1, 1])
        bins = reliability_bins(labels, probabilities, num_bins=4)
        assert sum(b.count for b in bins) == 5
        assert sum(round(b.observed_rate * b.count) for b in bins) == 3
        assert all(a.max_prediction < b.min_prediction for a, b in itertools.pairwise(bins))
        flipped = reliability_bins(labels.flip(0), probabilities.flip(0), num_bins=4)
        assert [(b.count, b.observed_rate) for b in bins] == [(b.count, b.observed_rate) for b in flipped]


def test_reliability_of_constant_and_absent_predictions() -> None:
    (only,) = reliability_bins(torch.tensor([0, 1, 0, 1]), torch.full((4,), 0.25), num_bins=10)
    assert (only.count, only.mean_prediction, only.observed_rate) == (4, 0.25, 0.5)
    assert reliability_bins(torch.empty(0), torch.empty(0), num_bins=10) == []
    with pytest.raises(ConfigError, match="num_bins=0"):
        reliability_bins(torch.empty(0), torch.empty(0), num_bins=0)


@pytest.mark.parametrize(("num_positives", "num_rows"), [(0, 1), (0, 50), (7, 7), (3, 10), (250, 1000)])
def test_wilson_interval_equals_scipy(num_positives: int, num_rows: int) -> None:
    expected = binomtest(num_positives, num_rows).proportion_ci(method="wilson")
    low, high = wilson_interval(num_positives, num_rows)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert low <= num_positives / num_rows <= high
