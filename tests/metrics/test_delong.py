"""DeLong's errors and tests against placements row by row, against repeated samples, and against pROC's definition."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from recsys.core.errors import ConfigError, DataError
from recsys.metrics import ScoreCounts, auc, auc_standard_error, auc_standard_error_of, compare_auc


def placements(labels: list[int], scores: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Share of negatives below each positive, and of positives above each negative, ties half."""
    positives = [s for s, label in zip(scores, labels, strict=True) if label]
    negatives = [s for s, label in zip(scores, labels, strict=True) if not label]
    wins = np.array([[(p > n) + 0.5 * (p == n) for n in negatives] for p in positives])
    return wins.mean(1), wins.mean(0)


def slow_covariance(labels: list[int], first: list[float], second: list[float]) -> float:
    """Equation of DeLong et al.: the covariance of placements of each class over its size."""
    parts = zip(placements(labels, first), placements(labels, second), strict=True)
    return sum(float(np.cov(a, b, ddof=1)[0, 1]) / len(a) for a, b in parts)


def slow_clustered_variance(labels: list[int], scores: list[float], groups: list[int]) -> float:
    """Obuchowski's S10, S01 and S11, group by group."""
    of_positives, of_negatives = placements(labels, scores)
    positive_groups = [g for g, label in zip(groups, labels, strict=True) if label]
    negative_groups = [g for g, label in zip(groups, labels, strict=True) if not label]
    area, total = of_positives.mean(), {"10": 0.0, "01": 0.0, "11": 0.0}
    for group in set(groups):
        up = sum(v - area for v, g in zip(of_positives, positive_groups, strict=True) if g == group)
        down = sum(v - area for v, g in zip(of_negatives, negative_groups, strict=True) if g == group)
        total["10"], total["01"], total["11"] = (
            total["10"] + up * up,
            total["01"] + down * down,
            total["11"] + up * down,
        )
    num_up, num_down, num = len(set(positive_groups)), len(set(negative_groups)), len(set(groups))
    num_positives, num_negatives = len(positive_groups), len(negative_groups)
    s10 = num_up / ((num_up - 1) * num_positives) * total["10"]
    s01 = num_down / ((num_down - 1) * num_negatives) * total["01"]
    s11 = num / (num - 1) * total["11"]
    return float(s10 / num_positives + s01 / num_negatives + 2 / (num_positives * num_negatives) * s11)


def drawn(seed: int, num_rows: int = 60, levels: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(num_rows, generator=generator) < 0.3).long()
    shared = torch.randn(num_rows, generator=generator) + labels
    noise = torch.randn(2, num_rows, generator=generator)
    return labels, ((shared + noise[0]) * levels).round(), ((shared + 0.5 * noise[1]) * levels).round()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [1, 4, 10**5])
def test_comparison_equals_the_definition(seed: int, levels: int) -> None:
    labels, first, second = drawn(seed, levels=levels)
    y, a, b = labels.tolist(), first.tolist(), second.tolist()
    got = compare_auc(labels, first, second.double(), level=0.9)
    assert (got.first, got.second) == (auc(labels, first), auc(labels, second))
    assert got.covariance.value == pytest.approx(slow_covariance(y, a, b), rel=1e-9)
    variance = slow_covariance(y, a, a) + slow_covariance(y, b, b) - 2 * slow_covariance(y, a, b)
    difference = auc(labels, second).value_or(0) - auc(labels, first).value_or(0)
    error = got.standard_error.value_or(0)
    assert error == pytest.approx(variance**0.5, rel=1e-9)
    assert got.difference.value == pytest.approx(difference, abs=1e-15)
    assert got.p_value.value == pytest.approx(2 * norm.sf(abs(difference) / error), rel=1e-9)
    assert (got.low.value, got.high.value) == pytest.approx(norm.interval(0.9, difference, error), rel=1e-9)
    swapped = compare_auc(labels, second, first)
    assert swapped.difference.value == -got.difference.value_or(0) and swapped.p_value.value == got.p_value.value


@pytest.mark.parametrize("seed", range(4))
def test_groups_equal_the_definition(seed: int) -> None:
    labels, first, second = drawn(seed)
    groups = torch.randint(-5, 6, labels.shape, generator=torch.Generator().manual_seed(seed)) * 2**40
    expected = slow_clustered_variance(labels.tolist(), first.tolist(), groups.tolist())
    errors = [auc_standard_error(labels, scores, groups).value_or(0) for scores in (first, second)]
    assert errors[0] == pytest.approx(expected**0.5, rel=1e-9)
    both = compare_auc(labels, first, second, groups=groups)
    variance = errors[0] ** 2 + errors[1] ** 2 - 2 * both.covariance.value_or(0)
    assert both.standard_error.value == pytest.approx(variance**0.5, rel=1e-9)
    alone = torch.randperm(labels.numel())
    single, plain = compare_auc(labels, first, second, groups=alone), compare_auc(labels, first, second)
    assert single.standard_error.value == pytest.approx(plain.standard_error.value, rel=1e-12)
    assert single.covariance.value == pytest.approx(plain.covariance.value, rel=1e-12)


def test_groups_see_that_rows_of_a_user_depend_on_each_other() -> None:
    generator = torch.Generator().manual_seed(3)
    values, plain, grouped, gaps, gap_errors = [], [], [], [], []
    users = torch.arange(60).repeat_interleave(10)
    for _ in range(150):
        labels = torch.rand(600, generator=generator) < 0.3
        taste = torch.randn(2, 60, generator=generator)[:, users]
        scores = torch.randn(600, generator=generator) + labels + 1.5 * taste[0]
        other = torch.randn(600, generator=generator) + labels + taste[1]
        labels = labels | (taste[0] > 1)  # some users click a lot, and score high
        comparison = compare_auc(labels, scores, other, groups=users)
        values.append(comparison.first.value_or(0))
        gaps.append(comparison.difference.value_or(0))
        gap_errors.append(comparison.standard_error.value_or(0))
        plain.append(auc_standard_error(labels, scores).value_or(0))
        grouped.append(auc_standard_error(labels, scores, users).value_or(0))
    # 150 samples know their own spread to about 6%.
    assert np.mean(grouped) == pytest.approx(np.std(values), rel=0.18)
    assert np.mean(gap_errors) == pytest.approx(np.std(gaps), rel=0.18)
    assert np.mean(plain) < 0.7 * np.std(values)


def test_of_equal_models_one_in_twenty_is_found_different() -> None:
    generator = torch.Generator().manual_seed(5)
    found = 0
    for _ in range(200):
        labels = torch.rand(300, generator=generator) < 0.2
        shared, noise = torch.randn(300, generator=generator), torch.randn(2, 300, generator=generator)
        found += compare_auc(labels, shared + noise[0] + labels, shared + noise[1] + labels).p_value.value_or(1) < 0.05
    assert 2 <= found <= 20  # 10 expected; 3 standard deviations are 9


def test_scores_that_order_the_rows_alike_have_no_test() -> None:
    labels, first, _ = drawn(1)
    got = compare_auc(labels, first, first.double() * 3 - 7, groups=torch.arange(60) // 3)
    assert got.difference.value == 0.0 and got.first == got.second
    assert not got.p_value.defined and "do not vary" in got.p_value.undefined_reason
    assert not got.low.defined and not got.standard_error.defined


@pytest.mark.parametrize(
    ("labels", "groups", "reason"),
    [
        ([0, 0, 1], None, "there are 1 positives and 2 negatives: two are needed"),
        ([], None, "there are 0 positives and 0 negatives: two are needed"),
        ([0, 0, 1, 1], [1, 2, 3, 3], "1 group(s) hold positives and 2 hold negatives: two are needed of each"),
        ([], [], "0 group(s) hold positives and 0 hold negatives: two are needed of each"),
    ],
)
def test_too_few_rows_or_groups_have_no_error(labels: list[int], groups: list[int] | None, reason: str) -> None:
    scores = torch.arange(len(labels)).float()
    index = None if groups is None else torch.tensor(groups, dtype=torch.int64)
    got = compare_auc(torch.tensor(labels), scores, scores, groups=index)
    assert auc_standard_error(torch.tensor(labels), scores, index).undefined_reason == reason
    assert {value.undefined_reason for value in vars(got).values()} == {reason}


def test_separated_classes_have_no_error() -> None:
    labels, scores = torch.tensor([0, 0, 1, 1]), torch.tensor([-math.inf, 0.0, 1.0, math.inf])
    for groups in (None, torch.arange(4)):
        assert "do not vary" in auc_standard_error(labels, scores, groups).undefined_reason


@pytest.mark.parametrize("scores", list(itertools.product([0.0, -0.0, math.inf, -math.inf], repeat=4))[::7])
def test_signed_zeros_tie_and_infinities_order(scores: tuple[float, ...]) -> None:
    labels = [0, 1, 0, 1]
    got = compare_auc(torch.tensor(labels), torch.tensor(scores), torch.zeros(4))
    assert got.first == auc(torch.tensor(labels), torch.tensor(scores))
    assert got.difference.value == 0.5 - got.first.value_or(0)
    variance = slow_covariance(labels, list(scores), list(scores))
    assert got.standard_error.value_or(0) == pytest.approx(variance**0.5, abs=1e-12)


def test_unusable_input_is_refused_by_name() -> None:
    labels, scores = torch.tensor([0, 1]), torch.tensor([0.1, 0.2])
    with pytest.raises(DataError, match=r"second scores: 1 of 2 value.*NaN"):
        compare_auc(labels, scores, torch.tensor([0.1, math.nan]))
    with pytest.raises(DataError, match="one per row"):
        compare_auc(labels, scores, scores, groups=torch.tensor([1]))
    with pytest.raises(DataError, match="whole rows"):
        auc_standard_error_of(ScoreCounts.from_rows(labels, scores, scores))
    with pytest.raises(ConfigError, match="level=1"):
        compare_auc(labels, scores, scores, level=1)
