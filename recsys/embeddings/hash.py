"""`hash`: ids share the rows of a smaller table per feature ("non-multiplexed" in arXiv:2305.12102)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.modules import Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, TableSpec
from recsys.embeddings.combiners import Only
from recsys.embeddings.method import FLOAT_BYTES, MethodConfig, expected_ids
from recsys.ops.hashing import hash_rows, salt_for


class HashRemap(Remap):
    """Rows by salted hash, one per salt, all below `num_rows`."""

    salts: Tensor

    def __init__(self, num_rows: int, salts: list[int]) -> None:
        super().__init__()
        self.num_rows = num_rows
        # Not persistent: salts are part of the plan, so a checkpoint need not hold them and cannot contradict them.
        self.register_buffer("salts", torch.tensor(salts, dtype=torch.int64), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (len(salts), N), each in [0, num_rows)."""
        return hash_rows(ids, self.salts, self.num_rows)

    def rows_needed(self) -> list[int] | None:
        """`num_rows` for every salt."""
        return [self.num_rows] * self.salts.numel()


@dataclass(frozen=True, kw_only=True)
class HashConfig(MethodConfig):
    """One hashed table per feature; rows in proportion to the vocabulary, as the paper's baseline splits its budget."""

    seed: int = 0  # of the hash functions

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan one row for every feature, and the rest of the budget by their share of all ids.

        A vocabulary gets no more rows than it has ids: hashed, they would not use them.
        """
        width = features[0].embedding_dim
        total_ids = sum(expected_ids(feature) for feature in features)
        # One row each comes off first: added afterwards, they would take a small budget beyond its bound.
        spare = max(0, budget_bytes // (width * FLOAT_BYTES) - len(features))
        shares = [1 + spare * expected_ids(feature) // total_ids for feature in features]
        rows = [min(share, feature.num_embeddings or share) for feature, share in zip(features, shares, strict=True)]
        return TablePlan.merge([self._plan_one(feature, num) for feature, num in zip(features, rows, strict=True)])

    def _plan_one(self, feature: FeatureSpec, num_rows: int) -> TablePlan:
        table = TableSpec(
            name=f"table_{feature.name}", num_embeddings=num_rows, embedding_dim=feature.embedding_dim, init=self.init
        )
        remap = Component.of(HashRemap, num_rows=num_rows, salts=[salt_for(feature.name, 0, self.seed)])
        entry = FeaturePlan(feature=feature, tables=(table.name,), remap=remap, combiner=Component.of(Only))
        return TablePlan(tables=(table,), features=(entry,))
