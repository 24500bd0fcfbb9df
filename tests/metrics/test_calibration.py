"""Platt and isotonic fits against scikit-learn, optimality conditions and exhaustive search."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from sklearn.calibration import _sigmoid_calibration
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from recsys.core.errors import DataError
from recsys.metrics import (
    IsotonicCalibration,
    PlattCalibration,
    ScoreCounts,
    auc,
    calibration_ratio,
    fit_isotonic,
    fit_platt,
    log_loss,
)


def drawn(levels: int, dtype: torch.dtype = torch.float64, num_rows: int = 3000) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(levels)
    logits = (torch.randn(num_rows, generator=generator, dtype=torch.float64) * 2 - 2).to(dtype)
    logits = (logits * levels).round() / levels
    labels = torch.rand(num_rows, generator=generator) < torch.sigmoid(logits.float() * 0.6 + 0.5)
    weights = torch.rand(num_rows, generator=generator, dtype=torch.float64) * 2
    return labels, logits, torch.where(weights < 0.4, 0.0, weights)


def platt_gradient(fit: PlattCalibration, labels: Tensor, logits: Tensor, weights: Tensor) -> tuple[float, float]:
    """Of the summed loss by slope and intercept, row by row."""
    rows = list(zip(labels.tolist(), logits.tolist(), weights.tolist(), strict=True))
    up, down = (math.fsum(w for y, _, w in rows if y == c) for c in (True, False))
    targets = {True: (up + 1) / (up + 2), False: 1 / (down + 2)}
    gaps = [w * (1 / (1 + math.exp(-(fit.slope * x + fit.intercept))) - targets[y]) for y, x, w in rows]
    return math.fsum(g * x for g, (_, x, _) in zip(gaps, rows, strict=True)), math.fsum(gaps)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [1, 10**6])
def test_platt_is_optimal_and_equals_scikit_learn(weighted: bool, dtype: torch.dtype, levels: int) -> None:
    labels, logits, weights = drawn(levels, dtype)
    mass = weights if weighted else torch.ones_like(weights)
    fit = fit_platt(ScoreCounts.from_rows(labels, logits, weights if weighted else None))
    # The loss is convex, so that a gradient of 0 is the minimum.
    assert platt_gradient(fit, labels, logits, mass) == pytest.approx((0, 0), abs=1e-7)
    slope, intercept = _sigmoid_calibration(logits.double().numpy(), labels.numpy(), mass.numpy())
    assert (fit.slope, fit.intercept) == pytest.approx((-slope, -intercept), abs=2e-3)
    assert (fit.slope, fit.intercept) == pytest.approx((0.6, 0.5), abs=0.1)
    assert auc(labels, fit.apply(logits)).value == pytest.approx(auc(labels, logits).value, abs=1e-9)
    assert log_loss(labels, fit.apply(logits)).value_or(9) < log_loss(labels, logits).value_or(0)


@pytest.mark.parametrize(
    ("labels", "logits"),
    [
        ([0, 0, 1, 1], [-1.0, -0.5, 0.5, 1.0]),  # separated
        ([1, 1, 0, 0], [-1.0, -0.5, 0.5, 1.0]),  # backwards
        ([0, 1], [1e-30, 2e-30]),
        ([0, 1], [1e30, 1.0000001e30]),
        ([0, 1, 1], [-3e38, 0.0, 3e38]),
        ([0] * 1000 + [1], [0.01 * i for i in range(1001)]),
        ([0, 1, 0], [-0.0, 0.0, 1.0]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_platt_of_adversarial_rows_is_finite_and_calibrated(
    labels: list[int], logits: list[float], dtype: torch.dtype
) -> None:
    y, x = torch.tensor(labels), torch.tensor(logits, dtype=dtype)
    fit = fit_platt(ScoreCounts.from_rows(y, x))
    up, down = sum(labels), len(labels) - sum(labels)
    pulled = up * (up + 1) / (up + 2) + down / (down + 2)
    # The intercept's equation: predictions add up to targets. At 1e30, the line itself cancels to seven digits.
    exact = 0.2 if abs(logits[0]) == 1e30 else 1e-7
    assert torch.sigmoid(fit.apply(x)).sum().item() == pytest.approx(pulled, abs=exact)


def test_platt_of_constant_logits_is_the_rate() -> None:
    counts = ScoreCounts.from_rows(torch.tensor([0, 1, 0, 0]), torch.full((4,), 3.0))
    fit = fit_platt(counts)
    rate = (2 / 3 + 3 / 5) / 4
    assert fit.slope == 0 and torch.sigmoid(fit.apply(torch.tensor([math.inf, -9.0]))).tolist() == pytest.approx(
        [rate] * 2
    )
    assert fit_isotonic(counts).apply(torch.tensor([[-math.inf, 3.0, 9.0]])).sigmoid().tolist() == [[0.25] * 3]


def best_fit(labels: list[int]) -> list[Fraction]:
    """The least squares non-decreasing fit, by trying every way to cut the rows into blocks."""
    best: tuple[Fraction, list[Fraction]] | None = None
    for cuts in itertools.product([False, True], repeat=len(labels) - 1):
        starts = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(labels)]
        fit: list[Fraction] = []
        for start, end in itertools.pairwise(starts):
            fit += [Fraction(sum(labels[start:end]), end - start)] * (end - start)
        loss = sum((value - label) ** 2 for value, label in zip(fit, labels, strict=True))
        if fit == sorted(fit) and (best is None or loss < best[0]):
            best = Fraction(loss), fit
    assert best is not None
    return best[1]


def test_isotonic_is_the_best_fit_of_every_input_of_seven_rows() -> None:
    for labels in itertools.product([0, 1], repeat=7):
        if 0 < sum(labels) < 7:
            fit = fit_isotonic(ScoreCounts.from_rows(torch.tensor(labels), torch.arange(7.0)))
            got = torch.sigmoid(fit.apply(torch.arange(7.0))).tolist()
            assert got == pytest.approx([float(value) for value in best_fit(list(labels))], abs=1e-15)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [1, 20, 10**6])
def test_isotonic_equals_scikit_learn_on_and_between_and_beyond_rows(
    weighted: bool, dtype: torch.dtype, levels: int
) -> None:
    labels, logits, weights = drawn(levels, dtype)
    mass = weights if weighted else torch.ones_like(weights)
    kept = mass > 0
    reference = IsotonicRegression(out_of_bounds="clip").fit(
        logits[kept].double().numpy(), labels[kept].double().numpy(), mass[kept].numpy()
    )
    fit = fit_isotonic(ScoreCounts.from_rows(labels, logits, weights if weighted else None))
    asked = torch.cat([logits.double(), torch.linspace(-12, 12, 999, dtype=torch.float64)])
    got = torch.sigmoid(fit.apply(asked))
    assert got.numpy() == pytest.approx(reference.predict(asked.numpy()), abs=1e-9)
    assert bool((fit.knots.diff() > 0).all()) and bool((fit.probabilities.diff() >= 0).all())
    calibrated = torch.sigmoid(fit.apply(logits))
    assert calibration_ratio(labels, calibrated, mass).value == pytest.approx(1.0, abs=1e-12)


def test_isotonic_of_long_runs_of_every_shape_is_monotone_and_pools_to_the_means() -> None:
    """Staircases take many rounds of pooling at once; descending ones pool into one block."""
    for num_rows in (50_000, 3):
        steps = torch.arange(num_rows)
        for labels in (steps % 2, 1 - steps % 2, (steps * 2 > num_rows).long(), (steps * 2 < num_rows).long()):
            fit = fit_isotonic(ScoreCounts.from_rows(labels, steps.double()))
            got = torch.sigmoid(fit.apply(steps.double()))
            assert bool((got.diff() >= -1e-15).all())
            assert got.sum().item() == pytest.approx(labels.sum().item(), rel=1e-12)


def test_isotonic_ends_may_be_certain() -> None:
    fit = fit_isotonic(ScoreCounts.from_rows(torch.tensor([0, 1, 0, 1]), torch.tensor([0.0, 1.0, 2.0, 3.0])))
    assert fit.knots.tolist() == [0, 1, 2, 3] and fit.probabilities.tolist() == [0, 0.5, 0.5, 1]
    got = fit.apply(torch.tensor([-math.inf, 0.0, 0.5, 1.5, 3.0, math.inf]))
    assert got.tolist() == [-math.inf, -math.inf, pytest.approx(math.log(1 / 3)), 0.0, math.inf, math.inf]
    assert fit.apply(torch.empty(0)).shape == (0,) and got.dtype == torch.float64
    assert isinstance(fit, IsotonicCalibration)


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
@pytest.mark.parametrize(
    ("labels", "logits", "weights", "words"),
    [
        ([], [], None, "there are no rows"),
        ([1, 1], [0.0, 1.0], None, "all 2 labels are 1"),
        ([0, 1], [0.0, 1.0], [1.0, 0.0], "all labels of weight above 0 are 0"),
        ([0, 1], [0.0, math.inf], None, "infinite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    fit: object, labels: list[int], logits: list[float], weights: list[float] | None, words: str
) -> None:
    mass = None if weights is None else torch.tensor(weights)
    assert callable(fit)
    with pytest.raises(DataError, match=words):
        fit(ScoreCounts.from_rows(torch.tensor(labels), torch.tensor(logits), mass))
