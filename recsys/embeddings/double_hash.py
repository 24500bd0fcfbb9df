"""`double_hash`: frequent ids own rows, the others have two by hash (Zhang et al., RecSys 2020, arXiv:2007.14523)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, Init, TableSpec
from recsys.embeddings.combiners import Concat, Sum
from recsys.embeddings.frequency import heads_of_known
from recsys.embeddings.method import FLOAT_BYTES, MethodConfig, full_table
from recsys.ops.hashing import hash_rows_into, salt_for
from recsys.ops.pieces import at_once

NUM_HASHES = 2


class Join(Enum):
    """How the two rows become one."""

    SUM = "sum"
    CONCAT = "concat"  # of rows d / 2 wide


class DoubleHashRemap(Remap):
    """Ids below `num_heads` read rows of their own, the others one row by hash for each salt.

    Args (of the constructor):
        num_heads: ids that own rows; theirs begin at `first_head`.
        first_head: row of id 0.
        rows_per_head: 1, which both look-ups read, or 2, one for each.
        shared: (first, number) of the rows that are hashed to.
        salts: one for each look-up.
    """

    salts: Tensor

    def __init__(
        self, num_heads: int, first_head: int, rows_per_head: int, shared: list[int], salts: list[int]
    ) -> None:
        super().__init__()
        self.num_heads, self.first_head, self.rows_per_head = num_heads, first_head, rows_per_head
        self.first_shared, self.num_shared = shared
        self.register_buffer("salts", torch.tensor(salts, dtype=torch.int64), persistent=False)  # part of the plan

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (len(salts), N)."""
        rows = torch.empty([self.salts.numel(), ids.numel()], dtype=torch.int64, device=ids.device)
        step = at_once(ids, 1 << 15)
        for start in range(0, ids.numel(), step):
            some, of_some = ids[start : start + step], rows[:, start : start + step]
            is_head = (some >= 0).logical_and_(some < self.num_heads)  # hashed keys may be negative
            own = (some * self.rows_per_head).add_(self.first_head)
            hash_rows_into(of_some, some, self.salts, self.num_shared)
            of_some.copy_(torch.where(is_head, own, of_some.add_(self.first_shared)))
            if self.rows_per_head > 1:
                of_some[1].add_(is_head)
        return rows

    def rows_needed(self) -> list[int] | None:
        """All heads' rows, and all that are hashed to."""
        last = max(self.first_head + self.num_heads * self.rows_per_head, self.first_shared + self.num_shared)
        return [last] * self.salts.numel()


@dataclass(frozen=True, kw_only=True)
class DoubleHashConfig(MethodConfig):
    """One table for all features of a width: `head_share` of its rows belong to frequent ids, the rest are hashed to.

    The paper's frequency hashing with double hashing for the rest. Which ids are frequent is decided over all features
    together, from the training counts (`frequency.heads`). All features hash into the same rows, each with two hash
    functions of its own: multiplexed hashing beats one hashed table per feature at equal bytes (arXiv:2305.12102,
    table 1). Features of hashed keys have no known frequent ids; all their keys are hashed.

    With `sum` a head reads its one row twice: so all embeddings are sums of two rows, learn alike, and pool before
    they combine. With `concat` rows are d / 2 wide and a head owns two. What has width 1 (a linear weight) cannot be
    split, and is summed.
    """

    join: Join = Join.SUM
    head_share: float = (
        0.2  # of the rows; on Criteo at 20x AUC .7573 with 0.2, .7570 with 0.5, .7560 with 0.8 (one seed)
    )
    seed: int = 0  # of the hash functions

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.head_share < 1:
            raise ConfigError(
                f"head_share={self.head_share}: must lie in [0, 1); rows that are hashed to need a share too."
            )

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan one table of as many rows as the budget holds; full tables if every id can have rows of its own."""
        width = features[0].embedding_dim
        rows_per_head = NUM_HASHES if self._join_at(width) is Join.CONCAT else 1
        if width % rows_per_head:
            raise ConfigError(
                f"join=concat splits the embedding width {width} in {NUM_HASHES} equal parts, and cannot. "
                "Choose an even model.embedding_dim, or join=sum."
            )
        num_rows = max(1, budget_bytes // (width // rows_per_head * FLOAT_BYTES))
        sizes = [feature.num_embeddings for feature in features]
        if None not in sizes and num_rows >= sum(size or 0 for size in sizes) * rows_per_head:
            return TablePlan.merge([full_table(feature, self.init) for feature in features])
        num_heads = heads_of_known(features, int(num_rows * self.head_share) // rows_per_head)
        table = TableSpec(
            name=f"table_double_hash_{features[0].name}",
            num_embeddings=num_rows,
            embedding_dim=width // rows_per_head,
            init=self._table_init(rows_per_head),
        )
        return TablePlan(tables=(table,), features=self._entries(features, table, num_heads, rows_per_head))

    def _join_at(self, width: int) -> Join:
        return Join.SUM if width == 1 else self.join

    def _table_init(self, rows_per_head: int) -> Init:
        if rows_per_head > 1:
            return self.init
        spread = NUM_HASHES**-0.5  # two independent rows add up to twice the variance of one
        return replace(self.init, center=self.init.center * spread, scale=self.init.scale * spread)

    def _entries(
        self, features: Sequence[FeatureSpec], table: TableSpec, num_heads: Sequence[int], rows_per_head: int
    ) -> tuple[FeaturePlan, ...]:
        first_shared = sum(num_heads) * rows_per_head
        shared = [first_shared, table.num_embeddings - first_shared]
        entries, first_head = [], 0
        for feature, count in zip(features, num_heads, strict=True):
            remap = Component.of(
                DoubleHashRemap,
                num_heads=count,
                first_head=first_head,
                rows_per_head=rows_per_head,
                shared=shared,
                salts=[salt_for(feature.name, lookup, self.seed) for lookup in range(NUM_HASHES)],
            )
            combiner = Component.of(Concat if rows_per_head > 1 else Sum)
            entries.append(
                FeaturePlan(feature=feature, tables=(table.name,) * NUM_HASHES, remap=remap, combiner=combiner)
            )
            first_head += count * rows_per_head
        return tuple(entries)
