"""`adapt_emb`: the most frequent ids have rows of their own, the others share hashed rows (arXiv:2311.15578, AdaptEmb).

The published code keeps an array that maps every id to its row, and does not count it. Here ids rank by training
frequency, so that "frequent" is a threshold, and nothing is stored beside the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, TableSpec
from recsys.embeddings.combiners import Only
from recsys.embeddings.frequency import heads_of_known
from recsys.embeddings.method import FLOAT_BYTES, MethodConfig, expected_ids, full_table
from recsys.ops.hashing import hash_rows, salt_for


class HeadOrHash(Remap):
    """Rows `first_private + id` for ids below `num_private`, hashed ones from `first_shared` on for all others."""

    salt: Tensor

    def __init__(self, num_private: int, first_private: int, num_shared: int, first_shared: int, salt: int) -> None:
        super().__init__()
        self.num_private, self.first_private = num_private, first_private
        self.num_shared, self.first_shared = num_shared, first_shared
        self.register_buffer("salt", torch.tensor([salt], dtype=torch.int64), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (1, N)."""
        shared = hash_rows(ids, self.salt, self.num_shared)
        if self.num_private == 0:  # a hashed feature: its ids may be negative, and would pass for frequent ones below
            return shared.add_(self.first_shared)
        shared.add_(self.first_shared - self.first_private)
        return torch.where(ids < self.num_private, ids, shared).add_(self.first_private)

    def rows_needed(self) -> list[int] | None:
        """Up to the end of the private or of the shared rows."""
        return [max(self.first_private + self.num_private, self.first_shared + self.num_shared)]


@dataclass(frozen=True, kw_only=True)
class AdaptEmbConfig(MethodConfig):
    """Private rows go to the most frequent ids of all features, whichever feature they are of.

    Features without a vocabulary have no known frequent ids: all of theirs are hashed.

    `shared_tail` puts the rare ids of all features into the same hashed rows ("feature multiplexing",
    arXiv:2305.12102). On by default, although the published method hashes within a feature: at equal memory as many
    ids share a row either way, but two ids of one feature in one row can never be told apart, while models with
    weights of their own for each feature can tell two features apart. Nor has any feature a minimum of one row.
    """

    head_share: float = 0.5  # of all rows; these are private
    shared_tail: bool = True
    seed: int = 0  # of the hash functions

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.head_share < 1:
            raise ConfigError(
                f"head_share={self.head_share}: must be at least 0 and below 1, because ids without private rows need "
                "rows to share. Set it to 0.5, or use embedding=min_count, which gives rare ids no rows."
            )

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Share out the budget's rows: `head_share` of them to frequent ids, the rest to all other ids."""
        num_rows = budget_bytes // (features[0].embedding_dim * FLOAT_BYTES)
        private = self._private_rows(features, num_rows)
        whole = [feature for feature, own in zip(features, private, strict=True) if own == feature.num_embeddings]
        rest = [(f, own) for f, own in zip(features, private, strict=True) if own != f.num_embeddings]
        plans = [full_table(feature, self.init) for feature in whole]
        if rest:
            plan_rest = self._plan_together if self.shared_tail else self._plan_apart
            plans.append(plan_rest([f for f, _ in rest], [own for _, own in rest], num_rows - sum(private)))
        return TablePlan.merge(plans)

    def _private_rows(self, features: Sequence[FeatureSpec], num_rows: int) -> list[int]:
        """How many of each feature's first ids own rows."""
        reserved = 1 if self.shared_tail else len(features)  # tails need a row each
        num_private = min(int(num_rows * self.head_share), num_rows - reserved)
        if num_rows >= sum(expected_ids(feature) for feature in features):
            num_private = num_rows
        return heads_of_known(features, num_private)

    def _plan_together(self, features: Sequence[FeatureSpec], private: Sequence[int], num_shared: int) -> TablePlan:
        """One table: each feature's private rows, one after the other, then the rows that all share."""
        *firsts, num_private = accumulate(private, initial=0)
        num_shared = max(1, num_shared)
        table = self._table(features[0], f"table_adapt_{features[0].name}", num_private + num_shared)
        entries = tuple(
            self._entry(feature, table.name, private_rows=(own, first), shared_rows=(num_shared, num_private))
            for feature, own, first in zip(features, private, firsts, strict=True)
        )
        return TablePlan(tables=(table,), features=entries)

    def _plan_apart(self, features: Sequence[FeatureSpec], private: Sequence[int], num_shared: int) -> TablePlan:
        """A table for each feature; shared rows in proportion to the ids that share them, at least one."""
        tails = [expected_ids(feature) - own for feature, own in zip(features, private, strict=True)]
        spare = max(0, num_shared - len(features))
        plans = []
        for feature, own, tail in zip(features, private, tails, strict=True):
            shared = 1 + spare * tail // sum(tails)
            if feature.num_embeddings is not None and own + shared >= feature.num_embeddings:
                plans.append(full_table(feature, self.init))
                continue
            table = self._table(feature, f"table_{feature.name}", own + shared)
            entry = self._entry(feature, table.name, private_rows=(own, 0), shared_rows=(shared, own))
            plans.append(TablePlan(tables=(table,), features=(entry,)))
        return TablePlan.merge(plans)

    def _table(self, feature: FeatureSpec, name: str, num_rows: int) -> TableSpec:
        return TableSpec(name=name, num_embeddings=num_rows, embedding_dim=feature.embedding_dim, init=self.init)

    def _entry(
        self, feature: FeatureSpec, table: str, *, private_rows: tuple[int, int], shared_rows: tuple[int, int]
    ) -> FeaturePlan:
        """The feature's entry; rows are (how many, the first)."""
        remap = Component.of(
            HeadOrHash,
            num_private=private_rows[0],
            first_private=private_rows[1],
            num_shared=shared_rows[0],
            first_shared=shared_rows[1],
            salt=salt_for(feature.name, 0, self.seed),
        )
        return FeaturePlan(feature=feature, tables=(table,), remap=remap, combiner=Component.of(Only))
