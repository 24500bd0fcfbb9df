"""AUC against its definition on every small input, and against scikit-learn on random and adversarial ones."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.classification import binary_auroc

from recsys.core.errors import DataError
from recsys.metrics import GroupedCounts, ScoreCounts, auc, auc_standard_error, gauc, roc_curve_of


def pairwise_auc(labels: list[int], scores: list[float]) -> float | None:
    """The definition: wins plus half the ties, over all pairs of a positive and a negative."""
    positives = [s for s, label in zip(scores, labels, strict=True) if label]
    negatives = [s for s, label in zip(scores, labels, strict=True) if not label]
    if not positives or not negatives:
        return None
    return sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives) / (len(positives) * len(negatives))


def orderings(length: int) -> list[tuple[int, ...]]:
    """Every way to order rows with ties: only the order of scores matters, so ranks without a gap are enough."""
    ranks = itertools.product(range(length), repeat=length)
    return [scores for scores in ranks if set(scores) == set(range(len(set(scores))))]


def test_auc_equals_its_definition_on_every_input_of_up_to_five_rows() -> None:
    for length in range(6):
        for labels in itertools.product([0, 1], repeat=length):
            for scores in orderings(length):
                got = auc(torch.tensor(labels, dtype=torch.int8), torch.tensor(scores, dtype=torch.float32))
                assert got.value == pairwise_auc(list(labels), list(scores)), (labels, scores)


@pytest.mark.parametrize("num_levels", [2, 7, 100, 10**9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_auc_equals_scikit_learn_and_torchmetrics(num_levels: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(num_levels)
    labels = torch.rand(20_000, generator=generator) < 0.03
    scores = (torch.rand(20_000, generator=generator, dtype=dtype) * num_levels).floor() + labels * 0.1 * num_levels
    value = auc(labels, scores).value
    assert value == pytest.approx(roc_auc_score(labels.numpy(), scores.numpy()), abs=1e-12)
    probabilities = (scores - scores.min()) / (scores.max() - scores.min())
    assert value == pytest.approx(binary_auroc(probabilities, labels.int()).item(), abs=1e-5)


@pytest.mark.parametrize(
    "scores",
    [
        [0.5] * 4,
        [1e-45, 3e-45, 0.0, -1e-45],
        [3.4e38, -3.4e38, 0.0, 1.0],
        [float("-inf"), float("inf"), float("inf"), 0.0],
        [0.0, -0.0, 0.0, -0.0],
    ],
)
def test_auc_of_adversarial_scores_equals_the_definition(scores: list[float]) -> None:
    labels = [0, 1, 0, 1]
    assert auc(torch.tensor(labels), torch.tensor(scores)).value == pairwise_auc(labels, scores)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.int64, torch.float32, torch.float64])
def test_labels_of_any_dtype(dtype: torch.dtype) -> None:
    assert auc(torch.tensor([0, 1, 1, 0], dtype=dtype), torch.tensor([0.1, 0.2, 0.3, 0.25])).value == 0.75


@given(st.lists(st.tuples(st.booleans(), st.integers(-50, 50)), min_size=2, max_size=60))
def test_auc_is_invariant_under_increasing_transforms_and_mirrored_by_decreasing_ones(
    rows: list[tuple[bool, int]],
) -> None:
    labels, scores = torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows], dtype=torch.float64)
    value = auc(labels, scores).value
    # Transform each distinct score once: torch's vectorised exp and sigmoid may differ from their scalar tail in the
    # last bit, so that equal inputs at different positions are not equal any more.
    levels = torch.arange(-50, 51, dtype=torch.float64)
    for transformed in (levels * 3 - 7, levels**3, torch.exp(levels / 10), torch.sigmoid(levels / 10)):
        assert auc(labels, transformed[scores.long() + 50]).value == value
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    assert auc(labels[order], scores[order]).value == value
    if value is not None:
        assert auc(labels, -scores).value == pytest.approx(1 - value, abs=1e-15)


def test_auc_resolves_differences_that_float32_would_lose() -> None:
    num_negatives = 2**20 + 1
    labels = torch.zeros(num_negatives + 1, dtype=torch.bool)
    labels[-1] = True
    scores = torch.zeros(num_negatives + 1)
    scores[-2:] = 1.0  # the positive beats all negatives but one, which it ties
    assert auc(labels, scores).value == (num_negatives - 0.5) / num_negatives


@pytest.mark.parametrize(
    ("labels", "reason"),
    [([], "there are no rows"), ([0, 0, 0], "all 3 labels are 0"), ([1, 1], "all 2 labels are 1")],
)
def test_auc_without_both_classes_is_undefined_with_the_reason(labels: list[int], reason: str) -> None:
    scores = torch.arange(len(labels), dtype=torch.float32)
    assert auc(torch.tensor(labels), scores).undefined_reason == reason
    assert auc(torch.tensor(labels), scores).value is None
    assert roc_curve_of(ScoreCounts.from_rows(torch.tensor(labels), scores), num_points=9)[0].numel() == 0


@pytest.mark.parametrize(
    ("labels", "scores", "words"),
    [
        ([0, 1, 1], [0.1, float("nan"), float("nan")], ["scores", "2 of 3", "NaN", "row 1"]),
        ([0, 1, 2], [0.1, 0.2, 0.3], ["labels", "1 of 3", "neither 0 nor 1", "row 2"]),
        ([0, float("nan"), 1], [0.1, 0.2, 0.3], ["labels", "row 1"]),
        ([0, 1], [0.1, 0.2, 0.3], ["(2,)", "(3,)"]),
        ([[0, 1]], [[0.1, 0.2]], ["(1, 2)"]),
    ],
)
def test_unusable_input_is_refused_by_name(labels: list[float], scores: list[float], words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        auc(torch.tensor(labels), torch.tensor(scores))
    assert all(word in str(caught.value) for word in words), caught.value


def placed_standard_error(labels: list[int], scores: list[float]) -> float:
    """DeLong's estimate from the placement of every row among the rows of the other class."""
    positives = [s for s, label in zip(scores, labels, strict=True) if label]
    negatives = [s for s, label in zip(scores, labels, strict=True) if not label]
    of_positives = [np.mean([(p > n) + 0.5 * (p == n) for n in negatives]) for p in positives]
    of_negatives = [np.mean([(p > n) + 0.5 * (p == n) for p in positives]) for n in negatives]
    return float((np.var(of_positives, ddof=1) / len(positives) + np.var(of_negatives, ddof=1) / len(negatives)) ** 0.5)


def test_standard_error_equals_its_definition_on_every_input_of_five_rows() -> None:
    for labels in itertools.product([0, 1], repeat=5):
        for scores in orderings(5)[::3]:
            got = auc_standard_error(torch.tensor(labels), torch.tensor(scores, dtype=torch.float32))
            if not 2 <= sum(labels) <= 3:
                assert "two are needed" in got.undefined_reason
            else:
                assert got.value_or(0.0) == pytest.approx(placed_standard_error(list(labels), list(scores)), abs=1e-7)


def test_standard_error_is_the_spread_of_auc_over_samples() -> None:
    generator = torch.Generator().manual_seed(11)
    values, errors = [], []
    for _ in range(400):
        labels = torch.rand(500, generator=generator) < 0.2
        scores = torch.randn(500, generator=generator) + labels
        values.append(auc(labels, scores).value_or(0.5))
        errors.append(auc_standard_error(labels, scores).value_or(0.0))
    # 400 samples know their own spread to about 3.5%.
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.12)


def looped_gauc(labels: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor) -> tuple[float, int, int]:
    """The definition, one group at a time: (average, groups used, rows used)."""
    total, used, rows = 0.0, 0, 0
    for group in set(groups.tolist()):
        mask = groups == group
        value = pairwise_auc(labels[mask].tolist(), scores[mask].tolist())
        if value is not None:
            total, used, rows = total + value * int(mask.sum()), used + 1, rows + int(mask.sum())
    return total / rows, used, rows


@pytest.mark.parametrize("num_groups", [1, 3, 40, 900])
@pytest.mark.parametrize("num_levels", [2, 5, 10**6])
def test_gauc_equals_a_loop_over_groups(num_groups: int, num_levels: int) -> None:
    generator = torch.Generator().manual_seed(num_groups * num_levels)
    labels = (torch.rand(1500, generator=generator) < 0.3).long()
    scores = (torch.rand(1500, generator=generator) * num_levels).floor()
    groups = torch.randint(0, num_groups, (1500,), generator=generator) * 2**40 - 2**41
    got = gauc(labels, scores, groups)
    assert got.num_groups == len(set(groups.tolist()))
    average, used, rows = looped_gauc(labels, scores, groups)
    assert got.auc.value == pytest.approx(average, abs=1e-12)
    assert (got.num_groups_used, got.num_rows_used) == (used, rows)


def test_every_group_of_every_input_of_four_rows_has_its_auc() -> None:
    # Every case is two groups of one large input, which sees that groups do not touch each other. Rows 0 and 3 stay in
    # their groups, the others take every place; more only renames groups or orders of rows.
    cases = list(
        itertools.product(
            itertools.product([0, 1], repeat=4), orderings(4), itertools.product([0], [0, 1], [0, 1], [1])
        )
    )
    labels, scores, groups = (torch.tensor([case[part] for case in cases]) for part in range(3))
    groups = (groups + 2 * torch.arange(len(cases))[:, None]).flatten()
    shuffled = torch.randperm(groups.numel(), generator=torch.Generator().manual_seed(0))
    labels, scores = labels.flatten(), scores.flatten().float()
    for weights in (None, torch.ones(groups.numel())):
        counts = GroupedCounts.from_rows(labels[shuffled], scores[shuffled], groups[shuffled], weights)
        values, areas, _, _ = counts.by_group()
        assert torch.equal(values, torch.arange(2 * len(cases)))
        for (y, x, places), pair in zip(cases, areas.view(-1, 2).tolist(), strict=True):
            for group in (0, 1):
                rows = [row for row in range(4) if places[row] == group]
                expected = pairwise_auc([y[row] for row in rows], [x[row] for row in rows])
                assert pair[group] == pytest.approx(math.nan if expected is None else expected, nan_ok=True, abs=1e-15)


def test_gauc_of_one_group_is_auc() -> None:
    labels, scores = torch.tensor([0, 1, 1, 0]), torch.tensor([0.1, 0.2, 0.3, 0.25])
    assert gauc(labels, scores, torch.full((4,), -3)).auc == auc(labels, scores)


def test_gauc_without_a_usable_group_says_so() -> None:
    got = gauc(torch.tensor([0, 0, 1]), torch.tensor([0.1, 0.2, 0.3]), torch.tensor([5, 5, 6]))
    assert got.auc.undefined_reason == "none of the 2 groups holds both a positive and a negative"
    assert (got.num_groups, got.num_groups_used, got.num_rows_used) == (2, 0, 0)
    empty = torch.empty(0)
    assert gauc(empty, empty, empty.long()).auc.undefined_reason == "there are no rows"
    with pytest.raises(DataError, match="one group per row"):
        gauc(torch.tensor([0, 1]), torch.tensor([0.1, 0.2]), torch.tensor([1]))


def test_roc_curve_encloses_the_auc_and_thins_to_the_asked_points() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.rand(5000, generator=generator) < 0.2
    scores = torch.randn(5000, generator=generator).mul(9).round() + labels * 5
    counts = ScoreCounts.from_rows(labels, scores)
    false_rate, true_rate = roc_curve_of(counts, num_points=10**6)
    assert torch.trapezoid(true_rate, false_rate).item() == pytest.approx(auc(labels, scores).value, abs=1e-12)
    thin_false, thin_true = roc_curve_of(counts, num_points=10)
    assert thin_false.numel() == 10
    exact = set(zip(false_rate.tolist(), true_rate.tolist(), strict=True))
    assert set(zip(thin_false.tolist(), thin_true.tolist(), strict=True)) <= exact
    assert (thin_false[[0, -1]].tolist(), thin_true[[0, -1]].tolist()) == ([0, 1], [0, 1])
    assert np.all(np.diff(thin_true.numpy()) >= 0)
