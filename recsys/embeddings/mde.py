"""`mde`: mixed dimension embeddings, wide rows for popular ids and narrow ones for the rest (arXiv:1909.11810)."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import torch
from torch import Tensor, nn

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Combiner, Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, TableSpec
from recsys.embeddings.combiners import Only
from recsys.embeddings.frequency import densities
from recsys.embeddings.method import MethodConfig, num_ids
from recsys.embeddings.projection import Projection, narrow_table, projected_bytes, worthwhile_width

STEPS = 1 << 14
"""Of the search for alpha, and of that for lambda below it."""


class PopularityRemap(Remap):
    """Row `id - first` of the block that holds the id, row 0 of all other blocks, whose look-ups nobody reads."""

    firsts: Tensor
    sizes: Tensor

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.num_rows = sizes
        counts = torch.tensor(sizes, dtype=torch.int64).unsqueeze(1)
        self.register_buffer("sizes", counts, persistent=False)
        self.register_buffer("firsts", counts.cumsum(0) - counts, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (number of blocks, N)."""
        rows = ids.unsqueeze(0) - self.firsts
        return torch.where((rows >= 0) & (rows < self.sizes), rows, 0)

    def rows_needed(self) -> list[int] | None:
        """The sizes of the blocks."""
        return self.num_rows


class PopularityProjection(Combiner):
    """The row of the id's block, projected by that block's matrix; a block of full width needs none.

    Not linear, because it chooses by id: multi-valued features combine per id, then pool.
    """

    linear: bool = False

    def __init__(self, sizes: list[int], widths: list[int], embedding_dim: int) -> None:
        super().__init__()
        self.bounds = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
        self.embedding_dim = embedding_dim
        self.projections = nn.ModuleList(
            Projection(width, embedding_dim) if width < embedding_dim else Only() for width in widths
        )

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return embeddings, float32, shape (N, embedding_dim)."""
        total = torch.zeros(ids.numel(), self.embedding_dim, dtype=rows[0].dtype, device=rows[0].device)
        for number, projection in enumerate(self.projections):
            inside = (ids >= self.bounds[number]) & (ids < self.bounds[number + 1])
            total = total + projection(ids, [rows[number] * inside.unsqueeze(1)])
        return total


@dataclass(frozen=True)
class Block:
    """Ids of a feature that are embedded alike: how many, and their average share of the feature's look-ups."""

    size: int
    popularity: float


def popularity_blocks(feature: FeatureSpec, num_blocks: int) -> list[Block]:
    """Cut a feature's ids into at most `num_blocks` runs, from the most popular ids to the least.

    Each holds about as many of the octaves [2**k, 2**(k+1)) of ids as the next, and so spans the same ratio of
    popularities where those follow a power law. Without counts nobody is popular: one block.
    """
    runs = list(densities(feature))[1:]  # the first is id 0, which joins the most popular ids
    if not runs:
        return [Block(1, 1.0)]
    count = min(num_blocks, len(runs))
    cuts = [len(runs) * number // count for number in range(count + 1)]
    total = sum(density * (high - low) for low, high, density in runs)
    blocks = []
    for first, last in pairwise(cuts):
        part = runs[first:last]
        share = sum(density * (high - low) for low, high, density in part) / total if total and count > 1 else 1.0
        size = part[-1][1] - (part[0][0] if first else 0)
        blocks.append(Block(size, share / size))
    return blocks


def legal_width(width: float, embedding_dim: int) -> int:
    """The nearest, by ratio, of the powers of two below `embedding_dim` and that itself."""
    legal = [1 << power for power in range(embedding_dim.bit_length()) if 1 << power < embedding_dim] + [embedding_dim]
    return min(legal, key=lambda candidate: abs(math.log2(candidate / max(width, 1.0))))


def _widths(features: Sequence[FeatureSpec], blocks: Sequence[list[Block]], step: int) -> list[list[int]]:
    """Widths of each feature's blocks: all 1 at step 0, those of alpha = 1 at STEPS, and of 0 at 2 * STEPS."""
    width = features[0].embedding_dim
    alpha = min(1.0, 2 - step / STEPS)
    largest = width ** min(1.0, step / STEPS)
    top = max(block.popularity for own in blocks for block in own)
    wanted = [[legal_width(largest * (block.popularity / top) ** alpha, width) for block in own] for own in blocks]
    return [
        [worthwhile_width(block.size, w, width) for block, w in zip(own, widths, strict=True)]
        for own, widths in zip(blocks, wanted, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class MdeConfig(MethodConfig):
    """Width lambda * p**alpha, p = 1 / vocabulary size of a feature, or the look-ups per id of a block of its ids.

    lambda gives the most popular block the asked width, so alpha = 0 means full tables. The smallest alpha in [0, 1]
    that fits is taken; where not even 1 fits (features of equal size, tiny budgets), lambda falls until all rows are
    1 wide. `blocks` > 1 reads as many rows as it has blocks for every id, and uses one.
    """

    blocks: int = 1  # of every feature, by popularity; more need the data set's counts

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks < 1:
            raise ConfigError(f"blocks={self.blocks}: a feature needs at least one. Set 1 for one width per feature.")

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Find alpha, or below alpha = 1 lambda.

        Raises:
            ConfigError: a feature has no vocabulary.
        """
        # No sorting by size, as the published solver does: widths would have to find back to their features.
        blocks = [popularity_blocks(feature, self.blocks) for feature in features]

        def num_bytes(step: int) -> int:
            pairs = zip(chain.from_iterable(blocks), chain.from_iterable(_widths(features, blocks, step)), strict=True)
            return sum(projected_bytes(block.size, width, features[0].embedding_dim) for block, width in pairs)

        step = bisect_right(range(1, 2 * STEPS + 1), budget_bytes, key=num_bytes)  # the largest that fits, else 0
        widths = _widths(features, blocks, step)
        return TablePlan.merge([self._plan_one(*parts) for parts in zip(features, blocks, widths, strict=True)])

    def _plan_one(self, feature: FeatureSpec, blocks: Sequence[Block], widths: Sequence[int]) -> TablePlan:
        width = feature.embedding_dim
        # The most popular blocks of full width become one: that saves look-ups and changes nothing.
        num_full = next((number for number, w in enumerate(widths) if w < width), len(widths))
        sizes, kept = [block.size for block in blocks[num_full:]], list(widths[num_full:])
        if num_full:
            sizes, kept = [num_ids(feature) - sum(sizes), *sizes], [width, *kept]
        if len(sizes) == 1:
            return narrow_table(feature, kept[0], self.init)
        tables = tuple(
            TableSpec(name=f"table_{feature.name}_block{number}", num_embeddings=size, embedding_dim=w, init=self.init)
            for number, (size, w) in enumerate(zip(sizes, kept, strict=True))
        )
        entry = FeaturePlan(
            feature=feature,
            tables=tuple(table.name for table in tables),
            remap=Component.of(PopularityRemap, sizes=sizes),
            combiner=Component.of(PopularityProjection, sizes=sizes, widths=kept, embedding_dim=width),
        )
        return TablePlan(tables=tables, features=(entry,))
