"""Merge similar blocks of rows until so many are left: L2 hashing proposes pairs, exact distances decide.

Legend: C blocks, R rows a block, d width.
"""

import torch
from torch import Tensor

NUM_HASHES = 4
"""Orders in which neighbours are sought, each round."""

BUCKET_WIDTH = 0.5
"""Of one hash, in standard deviations of what it projects."""

BUCKET_BLOCKS = 32
"""Blocks that share a bucket, about."""

ROUND_SHARE = 2
"""A round merges one of so many blocks at most, so that the most similar go first."""


def merge_blocks(
    blocks: Tensor, weights: Tensor, num_kept: int, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Merge blocks, those first whose merging costs least.

    Merged rows become their weighted mean; the cost of a pair is the weighted squared error that its merging adds,
    sum over rows of w1 w2 / (w1 + w2) * |x1 - x2|**2 (Ward). Equal blocks cost nothing.

    Args:
        blocks: float32, shape (C, R, d).
        weights: float32, shape (C, R), not negative: how much each row's error counts; 0 for rows that do not exist.
        num_kept: blocks in the end, in [1, C].
        generator: of the hash functions, on the CPU.
    Returns:
        (owners, merged): int64 (C,), which merged block each block became, numbered by their first block; float32
        (num_kept, R, d).
    Source: Datar et al., "Locality-sensitive hashing scheme based on p-stable distributions", SoCG 2004.
    """
    owners, blocks, weights = _merged_equals(blocks, weights, blocks.shape[0] - num_kept)
    while blocks.shape[0] > num_kept:
        quota = min(blocks.shape[0] - num_kept, max(1, blocks.shape[0] // ROUND_SHARE))
        pairs = _best_pairs(blocks, weights, quota, generator)
        blocks, weights, numbers = _merged(blocks, weights, pairs)
        owners = numbers[owners]
    return owners, blocks


def _merged_equals(blocks: Tensor, weights: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """(owners, blocks, weights) after merging at most `limit` blocks into the first one that equals each.

    At once: rounds of pairs would take one pair of many equal blocks each, because only one of them is cheapest.
    """
    count = blocks.shape[0]
    positions = torch.arange(count)
    codes = blocks.flatten(1).unique(dim=0, return_inverse=True)[1]
    first = torch.full_like(positions, count).scatter_reduce_(0, codes, positions, "amin")[codes]
    repeated = (first < positions).nonzero().squeeze(1)[:limit]
    stays = torch.ones(count, dtype=torch.bool)
    stays[repeated] = False
    target = torch.where(stays, positions, first)
    owners = (stays.cumsum(0) - 1)[target]
    sums = torch.zeros_like(weights).index_add_(0, target, weights)
    return owners, blocks[stays], sums[stays]


def merge_costs(blocks: Tensor, weights: Tensor, pairs: Tensor) -> Tensor:
    """Weighted squared error that merging each pair adds; pairs int64 (Q, 2) -> float32 (Q,)."""
    costs = []
    for part in pairs.split(1 << 16):
        first, second = part.unbind(1)
        together = weights[first] * weights[second] / (weights[first] + weights[second]).clamp(min=1e-30)
        costs.append(((blocks[first] - blocks[second]).square().sum(2) * together).sum(1))
    return torch.cat(costs)


def _best_pairs(blocks: Tensor, weights: Tensor, quota: int, generator: torch.Generator) -> Tensor:
    """Of the `quota` cheapest pairs that hashing proposes, those that are the cheapest of both their blocks."""
    count = blocks.shape[0]
    pairs = torch.cat([_proposals(blocks, generator) for _ in range(NUM_HASHES)]).sort(1).values
    keys = (pairs[:, 0] * count + pairs[:, 1]).unique()
    pairs = torch.stack([torch.div(keys, count, rounding_mode="floor"), keys % count], dim=1)
    # The rest waits for the next round: what is left of equal blocks goes before what is only similar.
    pairs = pairs[merge_costs(blocks, weights, pairs).sort(stable=True).indices[:quota]]
    ranks = torch.arange(pairs.shape[0])
    best = torch.full((count,), pairs.shape[0])
    best.scatter_reduce_(0, pairs.flatten(), ranks.repeat_interleave(2), "amin")
    return pairs[(best[pairs] == ranks.unsqueeze(1)).all(1)]


def _proposals(blocks: Tensor, generator: torch.Generator) -> Tensor:
    """Neighbours within the buckets of one hash function, along its first direction: int64 (Q, 2), Q >= 1."""
    flat = blocks.flatten(1)
    directions = 1
    while 5**directions * BUCKET_BLOCKS < flat.shape[0]:  # a hash of one direction has some five buckets
        directions += 1
    projected = flat @ torch.randn(flat.shape[1], directions + 1, generator=generator)
    width = BUCKET_WIDTH * projected[:, 1:].std(0, correction=0).clamp(min=1e-30)
    offsets = torch.rand(directions, generator=generator)
    cells = (projected[:, 1:] / width + offsets).floor().clamp(-1e6, 1e6).to(torch.int64)
    order = projected[:, 0].sort(stable=True).indices
    # One number a bucket; that two buckets share one does no harm.
    buckets = (cells * torch.randint(2**62, (directions,), generator=generator)).sum(1)
    order = order[buckets[order].sort(stable=True).indices]
    pairs = torch.stack([order[:-1], order[1:]], dim=1)
    same = buckets[pairs[:, 0]] == buckets[pairs[:, 1]]
    return pairs[same] if bool(same.any()) else pairs


def _merged(blocks: Tensor, weights: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(blocks, weights, new number of each old block) after merging each pair into its first block."""
    first, second = pairs.unbind(1)
    total = weights[first] + weights[second]
    share = (weights[second] / total.clamp(min=1e-30)).unsqueeze(2)
    blocks, weights = blocks.clone(), weights.clone()
    # Not a quotient of sums: equal rows have to stay what they are.
    blocks[first] += (blocks[second] - blocks[first]) * share
    weights[first] = total
    stays = torch.ones(blocks.shape[0], dtype=torch.bool)
    stays[second] = False
    numbers = stays.cumsum(0) - 1
    numbers[second] = numbers[first]
    return blocks[stays], weights[stays], numbers
