"""`min_count`: only the most frequent ids have rows, all others read the row of out-of-vocabulary ids."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.modules import Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, TableSpec
from recsys.embeddings.combiners import Only
from recsys.embeddings.frequency import heads
from recsys.embeddings.method import FLOAT_BYTES, MethodConfig, full_table, num_ids


class KeepFirst(Remap):
    """The id itself below `num_kept`, else row 0. Ids rank by frequency, so a threshold is all that a filter needs."""

    def __init__(self, num_kept: int) -> None:
        super().__init__()
        self.num_kept = num_kept

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (1, N), each in [0, num_kept)."""
        return torch.where(ids < self.num_kept, ids, 0).unsqueeze(0)

    def rows_needed(self) -> list[int] | None:
        """`num_kept`."""
        return [self.num_kept]


@dataclass(frozen=True, kw_only=True)
class MinCountConfig(MethodConfig):
    """One threshold of training look-ups for all features, as high as the budget asks; the baseline of all others.

    Ingest filters by a count that the user sets (`min_count`); here the budget sets it, and the data set stays as it
    is. At least one row a feature remains: what its out-of-vocabulary ids read.
    """

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Give the budget's rows to the most frequent ids of all features.

        Raises:
            ConfigError: a feature has no vocabulary, so nobody knows which of its ids are frequent.
        """
        counts = heads(features, budget_bytes // (features[0].embedding_dim * FLOAT_BYTES))
        return TablePlan.merge([self._plan_one(f, max(1, kept)) for f, kept in zip(features, counts, strict=True)])

    def _plan_one(self, feature: FeatureSpec, num_kept: int) -> TablePlan:
        if num_kept >= num_ids(feature):
            return full_table(feature, self.init)
        table = TableSpec(
            name=f"table_{feature.name}", num_embeddings=num_kept, embedding_dim=feature.embedding_dim, init=self.init
        )
        remap = Component.of(KeepFirst, num_kept=num_kept)
        entry = FeaturePlan(feature=feature, tables=(table.name,), remap=remap, combiner=Component.of(Only))
        return TablePlan(tables=(table,), features=(entry,))
