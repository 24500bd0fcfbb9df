"""`ce`: an id's embedding is cut into chunks, and each is a hashed row (CE of Tsang & Ahle, NeurIPS 2023).

e = concat_i T_i[h_i(id)], i = 1..c, with rows = parameters / d in every T_i: as many parameters as `hash` has, but two
ids share their whole embedding only if all c hashes collide. It is the baseline of clustered compositional embeddings,
arXiv:2210.05974, and what Product Quantization looks like before anything is learned about the ids.

One table holds the chunks of a feature one below the other, T_1 first. A table for each chunk would be looked up as
often, yet the planner, the optimizer, every checkpoint and every exported program would hold c times as many.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, TableSpec
from recsys.embeddings.combiners import Concat, Only
from recsys.embeddings.method import FLOAT_BYTES, MethodConfig, expected_ids, full_table
from recsys.ops.hashing import hash_rows, salt_for


class ChunkRemap(Remap):
    """Rows by salted hash, every look-up in `num_rows` rows of its own."""

    salts: Tensor
    starts: Tensor

    def __init__(self, num_rows: int, salts: list[int], starts: list[int]) -> None:
        """Keep the plan's numbers.

        Args:
            num_rows: that a look-up chooses from.
            salts: of each look-up.
            starts: the first of its rows.
        """
        super().__init__()
        self.num_rows = num_rows
        self.ends = [start + num_rows for start in starts]
        # Not persistent: both are part of the plan.
        self.register_buffer("salts", torch.tensor(salts, dtype=torch.int64), persistent=False)
        self.register_buffer("starts", torch.tensor(starts, dtype=torch.int64).unsqueeze(1), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (len(salts), N), look-up i in [starts[i], starts[i] + num_rows)."""
        return hash_rows(ids, self.salts, self.num_rows).add_(self.starts)

    def rows_needed(self) -> list[int] | None:
        """One past the last row of each look-up."""
        return self.ends


@dataclass(frozen=True, kw_only=True)
class CEConfig(MethodConfig):
    """Hashed chunks, a table per feature; rows in proportion to the vocabulary, as `hash` splits its budget.

    A width that `num_chunks` does not divide gives chunks of two widths, one column apart, and so two tables.
    """

    num_chunks: int = 4  # c; a width below it has as many chunks as columns
    seed: int = 0  # of the hash functions

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_chunks < 1:
            raise ConfigError(f"num_chunks={self.num_chunks}: must be 1 or more; 4 is the paper's.")

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan one row for every feature, and the rest of the budget by their share of all ids."""
        width = features[0].embedding_dim
        total_ids = sum(expected_ids(feature) for feature in features)
        # One row each comes off first: added afterwards, they would take a small budget beyond its bound.
        spare = max(0, budget_bytes // (width * FLOAT_BYTES) - len(features))
        rows = [1 + spare * expected_ids(feature) // total_ids for feature in features]
        return TablePlan.merge([self._plan_one(feature, num) for feature, num in zip(features, rows, strict=True)])

    def _plan_one(self, feature: FeatureSpec, num_rows: int) -> TablePlan:
        if feature.num_embeddings is not None and num_rows >= feature.num_embeddings:
            return full_table(feature, self.init)
        widths = chunk_widths(feature.embedding_dim, self.num_chunks)
        names = tuple(f"table_{feature.name}_chunks_of_{width}" for width in widths)
        tables = tuple(
            TableSpec(name=name, num_embeddings=count * num_rows, embedding_dim=width, init=self.init)
            for name, width, count in sorted({(n, w, widths.count(w)) for n, w in zip(names, widths, strict=True)})
        )
        salts = [salt_for(feature.name, chunk, self.seed) for chunk in range(len(widths))]
        starts = [names[:chunk].count(name) * num_rows for chunk, name in enumerate(names)]
        entry = FeaturePlan(
            feature=feature,
            tables=names,
            remap=Component.of(ChunkRemap, num_rows=num_rows, salts=salts, starts=starts),
            combiner=Component.of(Concat if len(widths) > 1 else Only),
        )
        return TablePlan(tables=tables, features=(entry,))


def chunk_widths(embedding_dim: int, num_chunks: int) -> list[int]:
    """Columns of each chunk: as equal as they can be, wider ones first, none empty; their sum is `embedding_dim`."""
    narrow, wider = divmod(embedding_dim, num_chunks)
    return [width for chunk in range(num_chunks) if (width := narrow + (chunk < wider)) > 0]
