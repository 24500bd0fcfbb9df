"""Merging blocks: costs and means by hand, equal blocks first, close to exhaustive clustering, determinism."""

import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor

from recsys.ops.block_merging import merge_blocks, merge_costs


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def error(blocks: Tensor, weights: Tensor, num_kept: int) -> float:
    owners, merged = merge_blocks(blocks, weights, num_kept, generator=generator())
    return float(((merged[owners] - blocks).square().sum(2) * weights).sum())


def test_cost_and_mean_by_hand() -> None:
    """Rows 0 and 4 with weights 1 and 3: cost 3/4 * 16 = 12, mean 3; the second rows are equal: cost 0."""
    blocks = torch.tensor([[[0.0], [5.0]], [[4.0], [5.0]], [[100.0], [7.0]]])
    weights = torch.tensor([[1.0, 2.0], [3.0, 1.0], [1.0, 1.0]])
    assert merge_costs(blocks, weights, torch.tensor([[0, 1]])).tolist() == [12.0]
    owners, merged = merge_blocks(blocks, weights, 2, generator=generator())
    assert owners.tolist() == [0, 0, 1]
    assert merged.tolist() == [[[3.0], [5.0]], [[100.0], [7.0]]]


def test_cost_is_the_error_that_merging_adds() -> None:
    blocks, weights = torch.randn(2, 3, 4, generator=generator()), torch.rand(2, 3, generator=generator(1))
    cost = float(merge_costs(blocks, weights, torch.tensor([[0, 1]])))
    assert cost == pytest.approx(error(blocks, weights, 1), rel=1e-5)


def test_equal_blocks_merge_first_and_stay_exact() -> None:
    distinct = torch.randn(20, 4, 3, generator=generator())
    owners = torch.randint(20, (200,), generator=generator(1))
    owners[:20] = torch.arange(20)
    found, merged = merge_blocks(
        distinct[owners], torch.rand(200, 4, generator=generator(2)), 20, generator=generator()
    )
    assert torch.equal(found, owners)
    assert torch.equal(merged, distinct)


def test_thousands_of_equal_blocks_merge_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In rounds of pairs it took 10 s: one pair a round."""
    monkeypatch.delattr("recsys.ops.block_merging._best_pairs")
    blocks = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]).repeat(1000, 1, 1)
    owners, merged = merge_blocks(blocks, torch.ones(2000, 1), 2, generator=generator())
    assert torch.equal(owners, torch.arange(2000) % 2) and torch.equal(merged, blocks[:2])


def test_no_more_equal_blocks_merge_than_must() -> None:
    blocks = torch.tensor([5.0, 5.0, 7.0, 5.0, 7.0]).view(5, 1, 1)
    owners, merged = merge_blocks(blocks, torch.ones(5, 1), 3, generator=generator())
    assert owners.tolist() == [0, 0, 1, 0, 2] and merged.flatten().tolist() == [5.0, 7.0, 7.0]


def test_weights_of_equal_blocks_add_up() -> None:
    """Three blocks at 0 and one at 4: mean 1."""
    blocks = torch.tensor([0.0, 0.0, 4.0, 0.0, 100.0]).view(5, 1, 1)
    owners, merged = merge_blocks(blocks, torch.ones(5, 1), 2, generator=generator())
    assert owners.tolist() == [0, 0, 0, 0, 1] and merged.flatten().tolist() == [1.0, 100.0]


def test_absent_rows_cost_nothing() -> None:
    blocks = torch.tensor([[[1.0], [2.0]], [[1.0], [0.0]], [[9.0], [2.0]]])
    weights = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    owners, merged = merge_blocks(blocks, weights, 2, generator=generator())
    assert owners.tolist() == [0, 0, 1] and torch.equal(merged, blocks[[0, 2]])
    nothing = merge_blocks(blocks, torch.zeros(3, 2), 1, generator=generator())[1]
    assert nothing.isfinite().all()


@pytest.mark.parametrize("num_kept", [100, 25])
def test_error_is_near_that_of_exhaustive_agglomeration(num_kept: int) -> None:
    """Ward's method over all pairs is what hashing approximates; 1.6 times its error at most, and half of random."""
    centers = torch.randn(60, 2, 4, generator=generator()) * 2
    blocks = centers[torch.randint(60, (800,), generator=generator(1))]
    blocks = blocks + 0.3 * torch.randn(800, 2, 4, generator=generator(2))
    ours = error(blocks, torch.ones(800, 2), num_kept)
    labels = torch.tensor(fcluster(linkage(blocks.flatten(1).numpy(), "ward"), num_kept, "maxclust")).long() - 1
    best = scatter_error(blocks, labels)
    random = scatter_error(blocks, torch.arange(800) % num_kept)
    assert ours < 1.6 * best and ours < 0.5 * random


def scatter_error(blocks: Tensor, labels: Tensor) -> float:
    means = torch.stack([blocks[labels == label].mean(0) for label in range(int(labels.max()) + 1)])
    return float((means[labels] - blocks).square().sum())


def test_error_falls_with_blocks_kept() -> None:
    blocks, weights = torch.randn(300, 2, 4, generator=generator()), torch.rand(300, 2, generator=generator(1))
    errors = [error(blocks, weights, kept) for kept in (1, 10, 50, 150, 299, 300)]
    assert errors == sorted(errors, reverse=True) and errors[-1] == 0


def test_deterministic_and_numbered_by_first_block() -> None:
    blocks = torch.randn(500, 3, 2, generator=generator())
    runs = [merge_blocks(blocks, torch.ones(500, 3), 77, generator=generator(3)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    owners = runs[0][0].tolist()
    firsts = [owners.index(number) for number in range(77)]
    assert firsts == sorted(firsts) and set(owners) == set(range(77))
