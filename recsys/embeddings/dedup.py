"""`dedup`: similar blocks of rows of trained tables are stored once.

Source: "Dedup" of Zhang et al., VLDB 2024, arXiv:2311.15578, after Zhou et al., "Serving deep learning models with
deduplication from relational databases", VLDB 2022, arXiv:2201.10442: tables are cut into blocks, L2 hashing proposes
similar ones. There a threshold of similarity decides how many merge; here the budget does, and the merged rows are the
mean of their members, weighted by how often ids are looked up.

Bytes of a feature of n ids and width d, of whose m blocks of R rows k are kept: 4 k R d for rows, m * ceil(log2 k) / 8
for the map. The floor is one block and one bit a block: 32 R d times less than full tables at most, 1024 by default at
d = 16.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Remap
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, TableSpec
from recsys.embeddings.combiners import Only
from recsys.embeddings.frequency import heads, id_weights
from recsys.embeddings.method import fit, full_table, num_ids
from recsys.embeddings.post_training import EachAloneConfig
from recsys.ops import bits
from recsys.ops.block_merging import merge_blocks


class DedupRemap(Remap):
    """Row map[id // R] * R + id % R: where the id's block went, and the id's place in it."""

    blocks: Tensor

    def __init__(self, num_ids: int, block_rows: int, num_kept: int) -> None:
        super().__init__()
        self.num_blocks, self.block_rows, self.num_kept = -(-num_ids // block_rows), block_rows, num_kept
        self.bits = bits.bits_for(num_kept)
        self.register_buffer("blocks", torch.zeros(bits.packed_bytes(self.num_blocks, self.bits), dtype=torch.uint8))

    def fill(self, owners: Tensor) -> None:
        """Store which kept block each block became: integers in [0, num_kept), shape (num_blocks,)."""
        assert owners.shape == (self.num_blocks,), f"owners of shape {tuple(owners.shape)}"
        self.blocks.copy_(bits.pack(owners, self.bits))

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (1, N)."""
        block = torch.div(ids, self.block_rows, rounding_mode="floor")
        kept = bits.unpack(self.blocks, block, self.bits)
        return (kept * self.block_rows + ids - block * self.block_rows).unsqueeze(0)

    def rows_needed(self) -> list[int] | None:
        """All rows of all kept blocks."""
        return [self.num_kept * self.block_rows]


@dataclass(frozen=True, kw_only=True)
class DedupConfig(EachAloneConfig):
    """Blocks of rows merged by similarity; a feature keeps as many as its share of the most frequent ids fills."""

    block_rows: int = 2  # merged together; more make a smaller map and a faster freeze, and lose more

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_rows < 1:
            raise ConfigError(f"block_rows={self.block_rows}: a block has at least one row. Set it to 1 or more.")

    def serve(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Keep blocks for the largest number of most frequent ids that fits."""
        return fit(
            lambda num_rows: TablePlan.merge(
                [self._plan_one(f, count) for f, count in zip(features, heads(features, num_rows), strict=True)]
            ),
            0,
            sum(num_ids(feature) for feature in features),
            budget_bytes,
        )

    def compress_one(self, served: TablePlan, table: Tensor, *, generator: torch.Generator) -> EmbeddingParts:
        """Merge blocks."""
        (entry,), (spec,) = served.features, served.tables
        name, remap = entry.feature.name, entry.remap.build()
        assert isinstance(remap, DedupRemap)
        missing = remap.num_blocks * self.block_rows - table.shape[0]
        blocks = torch.nn.functional.pad(table, (0, 0, 0, missing)).unflatten(0, (-1, self.block_rows))
        weights = torch.nn.functional.pad(id_weights(entry.feature), (0, missing)).view(-1, self.block_rows)
        owners, merged = merge_blocks(blocks, weights, remap.num_kept, generator=generator)
        remap.fill(owners)
        return EmbeddingParts(
            plan=served,
            tables={spec.name: merged.flatten(0, 1)},
            remaps={name: remap},
            combiners={name: Only()},
        )

    def _plan_one(self, feature: FeatureSpec, num_rows: int) -> TablePlan:
        size, width = num_ids(feature), feature.embedding_dim
        num_kept = min(max(1, -(-num_rows // self.block_rows)), 2**bits.MAX_BITS)
        full = full_table(feature, self.init)
        table = TableSpec(name=f"blocks_{feature.name}", num_embeddings=num_kept * self.block_rows, embedding_dim=width)
        remap = Component.of(DedupRemap, num_ids=size, block_rows=self.block_rows, num_kept=num_kept)
        entry = FeaturePlan(feature=feature, tables=(table.name,), remap=remap, combiner=Component.of(Only))
        merged = TablePlan(tables=(table,), features=(entry,))
        return merged if merged.num_bytes < full.num_bytes else full
