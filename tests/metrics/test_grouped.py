"""GAUC with weights, its choices of what a group counts, and merging over files."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from recsys.core.errors import DataError
from recsys.metrics import GroupedCounts, GroupWeight, auc, gauc, gauc_of


def drawn(num_groups: int = 25) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_groups)
    labels = (torch.rand(400, generator=generator) < 0.2).long()
    scores = (torch.randn(400, generator=generator) * 3).round()
    groups = torch.randint(0, num_groups, (400,), generator=generator) * 2**40 - 2**41
    weights = torch.rand(400, generator=generator, dtype=torch.float64) * 10.0 ** (groups % 7).double()
    return labels, scores, groups, torch.where(torch.rand(400, generator=generator) < 0.2, 0.0, weights)


@pytest.mark.parametrize("weighting", list(GroupWeight))
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("num_groups", [1, 25, 200])
def test_gauc_equals_scikit_learn_group_by_group(weighting: GroupWeight, weighted: bool, num_groups: int) -> None:
    labels, scores, groups, weights = drawn(num_groups)
    mass = weights if weighted else torch.ones(400, dtype=torch.float64)
    total = area = rows = 0.0
    for group in groups.unique():
        row = (groups == group) & (mass > 0)
        if len(set(labels[row].tolist())) < 2:
            continue
        value = roc_auc_score(labels[row].numpy(), scores[row].numpy(), sample_weight=mass[row].numpy())
        size = {
            GroupWeight.EQUAL: 1.0,
            GroupWeight.IMPRESSIONS: mass[row].sum().item(),
            GroupWeight.CLICKS: (mass * labels)[row].sum().item(),
        }[weighting]
        total, area, rows = total + size, area + size * value, rows + mass[row].sum().item()
    counts = GroupedCounts.from_rows(labels, scores, groups, weights if weighted else None)
    got = gauc_of(counts, weighting=weighting)
    assert got.auc.value == pytest.approx(area / total, rel=1e-12)
    assert got.num_rows_used == pytest.approx(rows, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_merging_files_gives_the_counts_of_all_rows(weighted: bool) -> None:
    labels, scores, groups, weights = drawn()
    integer = weights.round()
    parts = [
        GroupedCounts.from_rows(labels[rows], scores[rows], groups[rows], integer[rows] if weighted else None)
        for rows in (slice(0, 0), slice(0, 150), slice(150, 400))
    ]
    whole = GroupedCounts.from_rows(labels, scores, groups, integer if weighted else None)
    merged = parts[2].merged(*parts[:2])
    for name in ("groups", "scores", "positives", "negatives"):
        assert torch.equal(getattr(merged, name), getattr(whole, name)), name
    with pytest.raises(DataError, match="cannot be merged"):
        whole.merged(GroupedCounts.from_rows(labels, scores.double(), groups))


def test_a_light_group_after_heavy_ones_keeps_its_digits() -> None:
    labels, scores = torch.tensor([0, 1] * 4), torch.tensor([0.0, 1.0, 5.0, 4.0, 0.0, 1.0, 2.0, 1.5])
    groups = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2])
    weights = torch.tensor([1e20, 1e20, 1.0, 1.0, 1e-20, 1e-20, 1e-20, 3e-20], dtype=torch.float64)
    area = GroupedCounts.from_rows(labels, scores, groups, weights).by_group()[1].tolist()
    assert area == pytest.approx([1.0, 0.0, 0.5], abs=1e-15)


def test_signed_zeros_tie_and_infinities_order_within_a_group() -> None:
    labels, scores = torch.tensor([0, 1, 0, 1]), torch.tensor([0.0, -0.0, -math.inf, math.inf])
    assert gauc(labels, scores, torch.zeros(4, dtype=torch.int64)).auc == auc(labels, scores)


def test_rows_without_weight_are_no_rows() -> None:
    labels, scores, groups = torch.tensor([0, 1, 1]), torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1, 1, 2])
    got = gauc(labels, scores, groups, torch.zeros(3))
    assert got.auc.undefined_reason == "no row has a weight above 0" and got.num_groups == 0
    got = gauc(labels, scores, groups, torch.tensor([1.0, 0.0, 1.0]))
    assert got.auc.undefined_reason == "none of the 2 groups holds both a positive and a negative"
    with pytest.raises(DataError, match="an integer each"):
        gauc(labels, scores, scores)
