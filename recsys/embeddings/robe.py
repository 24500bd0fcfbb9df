"""`robe`: one array for the whole model, read in blocks at hashed places (ROBE-Z; Desai et al., MLSys 2022).

The d values of an id are ceil(d / Z) blocks of Z values; block i of id x of feature f is

    g(f, x, i) * array[(h(f, x, i) + j) mod |array|],  j = 0..Z-1,

with h a hash over all places of the array, g a hash over {-1, +1}. The feature is part of both, so that equal ids of
two features read different places. Source: arXiv:2108.02191.

As tables: the array is a table of R rows of Z values, row after row. A block at place p starts in row p // Z, and
unless Z divides p it ends in the next one, the first row after the last: two look-ups a block, and a combiner that
cuts Z values at p mod Z out of the 2 Z, with p hashed again from the id. So

* an id costs 2 ceil(d / Z) look-ups of Z values (`hash`: one of d), and multi-valued features, with every feature that
  shares their array, are looked up per id and pooled afterwards, because the cut depends on the id;
* with Z = 1 nothing is cut: d look-ups of one value. While training such rows are padded to four columns, so the array
  takes four times its bytes, and d look-ups of one id touch d places of memory: larger blocks are what the paper is
  about. A sign still makes it depend on the id; without one the combiner is plain concatenation;
* row-wise Adagrad keeps one step size for the Z values of a row, which blocks of several ids share.

Features of one width share an array: a table has one width, and the linear weights beside embeddings have Z = 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Combiner, Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, TableSpec
from recsys.embeddings.combiners import Concat, Only
from recsys.embeddings.hash import HashRemap
from recsys.embeddings.method import FLOAT_BYTES, MethodConfig
from recsys.ops.hashing import hash_rows, mix64_, salt_for

MAX_BLOCK = 1024
"""Widest row that FBGEMM trains."""


class BlockRemap(Remap):
    """The two neighbouring rows that a block at a hashed place lies in."""

    salts: Tensor

    def __init__(self, num_rows: int, block_size: int, salts: list[int]) -> None:
        """Keep the plan's numbers.

        Args:
            num_rows: rows of the array.
            block_size: values of a row, and of a block.
            salts: one per block.
        """
        super().__init__()
        self.num_rows, self.block_size = num_rows, block_size
        # Not persistent: salts are part of the plan.
        self.register_buffer("salts", torch.tensor(salts, dtype=torch.int64), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (2 * blocks, N): the first row of every block, then the one after it."""
        places = hash_rows(ids, self.salts, self.num_rows * self.block_size)
        first = torch.div(places, self.block_size, rounding_mode="floor")
        second = first + 1
        return torch.cat([first, second * (second < self.num_rows)])  # circular: after the last row comes row 0

    def rows_needed(self) -> list[int] | None:
        """All rows for every look-up."""
        return [self.num_rows] * (2 * self.salts.numel())


class Blocks(Combiner):
    """Cut each block out of its rows, give it its sign, and lay the blocks side by side."""

    linear: bool = False
    salts: Tensor
    sign_salts: Tensor

    def __init__(self, embedding_dim: int, block_size: int, salts: list[int], sign_salts: list[int]) -> None:
        """Keep the plan's numbers.

        Args:
            embedding_dim: values of an id; the last block gives no more than are left.
            block_size: values of a row, and of a block.
            salts: one per block, those of `BlockRemap`; not used with blocks of one value, which nothing is cut from.
            sign_salts: one per block, or none for blocks without signs.
        """
        super().__init__()
        self.embedding_dim, self.block_size, self.signed = embedding_dim, block_size, len(sign_salts) > 0
        self.register_buffer("salts", torch.tensor(salts, dtype=torch.int64), persistent=False)
        self.register_buffer("sign_salts", torch.tensor(sign_salts, dtype=torch.int64), persistent=False)

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return embeddings, shape (N, embedding_dim)."""
        count = self.salts.numel()
        if self.block_size > 1:
            # Each block's two rows side by side, all in one copy.
            neighbours: list[Tensor] = []
            for block in range(count):
                neighbours += [rows[block], rows[count + block]]
            both = torch.cat(neighbours, dim=1).view(ids.shape[0], count, 2 * self.block_size)
            # A place is a hash modulo rows * Z, so modulo Z it is the hash modulo Z.
            cut = hash_rows(ids, self.salts, self.block_size).t().contiguous().unsqueeze(2)
            blocks = both.gather(2, cut + torch.arange(self.block_size, device=ids.device))
        else:
            blocks = torch.stack(rows, dim=1)
        if self.signed:
            bits = mix64_(ids.unsqueeze(0) + self.sign_salts.unsqueeze(1)).bitwise_and_(1)
            signs = bits.t().contiguous().to(blocks.dtype).mul_(-2).add_(1)
            blocks = blocks * signs.unsqueeze(2)
        return blocks.reshape(ids.shape[0], count * self.block_size)[:, : self.embedding_dim]


@dataclass(frozen=True, kw_only=True)
class RobeConfig(MethodConfig):
    """One array for all features of a width, as large as the budget. Hashed features need no vocabulary."""

    block_size: int = 8  # Z; a width below it is one block
    signed: bool = True  # False: no sign hash
    seed: int = 0  # of the hash functions

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.block_size <= MAX_BLOCK:
            raise ConfigError(
                f"block_size={self.block_size}: a block is a table row, and has 1 to {MAX_BLOCK} values. "
                "Set it to 1 (the survey's), or to a power of two up to the embedding's width."
            )

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan the array: as many rows as fit, but no more values than all ids of the features have together."""
        width = features[0].embedding_dim
        block = min(self.block_size, width)
        num_rows = max(1, budget_bytes // (block * FLOAT_BYTES))
        if all(feature.num_embeddings for feature in features):
            num_rows = min(num_rows, -(-sum(feature.num_embeddings or 0 for feature in features) * width // block))
        table = TableSpec(
            name=f"table_robe_{features[0].name}", num_embeddings=num_rows, embedding_dim=block, init=self.init
        )
        entries = tuple(self._plan_one(feature, table) for feature in features)
        return TablePlan(tables=(table,), features=entries)

    def _plan_one(self, feature: FeatureSpec, table: TableSpec) -> FeaturePlan:
        num_rows, block, width = table.num_embeddings, table.embedding_dim, feature.embedding_dim
        count = -(-width // block)
        salts = [salt_for(feature.name, number, self.seed) for number in range(count)]
        sign_salts = [salt_for(feature.name, count + number, self.seed) for number in range(count * self.signed)]
        remap = Component.of(BlockRemap, num_rows=num_rows, block_size=block, salts=salts)
        combiner = Component.of(Blocks, embedding_dim=width, block_size=block, salts=salts, sign_salts=sign_salts)
        if block == 1:  # no block spans two rows
            remap = Component.of(HashRemap, num_rows=num_rows, salts=salts)
        if block == 1 and not self.signed:
            combiner = Component.of(Concat if count > 1 else Only)
        tables = (table.name,) * (count if block == 1 else 2 * count)
        return FeaturePlan(feature=feature, tables=tables, remap=remap, combiner=combiner)
