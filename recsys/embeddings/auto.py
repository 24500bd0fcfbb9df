"""`auto`: frequent ids own rows, less frequent ones of all features share the rest, rare ones read what id 0 reads.

Rows are served as narrow as the budget asks. Six decisions, by one rule each. The figures are validation AUC of DCNv2
on the Criteo sample (266,735 ids, d = 16, seed 1), where full tables reach .7604; those of 1 to 4 were measured with
one look-up an id. Differences to full at 5, 50, 100 and 1000 times less are 0, -.0006, -.0017 and -.0037; with seed 2
(full .7592) -.0001, -.0006, -.0005 and -.0043.

1. *Row type*: the most exact one whose rows give every id seen more than once its own; else the narrowest. Rounding
   rows after training to int4 cost .00004 AUC on average and .00025 at most in 46 models. Rounding to int2 cost .0006
   and .0019, more than the .0003 that its half as many rows again bring: so int2 is not among the defaults.
2. *Rare ids*: those seen once read the row of unknown ids, which so learns what "rare" means, unless there is room for
   full tables. A row for each of the other 85,210 ids gave .7604, as full tables do; on generated rows, where most of
   11 million ids were seen once, .0003 less. The smaller the table, the more ids are better left out than let into
   shared rows: at 1000 times less .7541 with all ids, .7556 without those seen once, .7572 without those seen 8 times.
   But without those seen 16 times .0007 (seed 1) and .0015 (seed 2) were lost at 100 times less, .0008 at 1000; on the
   generated rows .0002 were gained.
3. *Known ids*: those with more than `rare_lookups` look-ups, but at most `ids_per_row` for each row, and no fewer than
   rows. At 50 times less, 1, 2 and 3 ids a row gave .7601, .7600, .7597; at 100 times less, 1, 1.4, 2, 2.2 and 6
   gave .7580, .7585, .7592, .7591, .7590; at 1000 times less, 1, 2, 4, 14 and 60: .7500, .7556, .7572, .7572, .7556
   (with seed 2, where these are all lower: 4, 8 and 16 gave .7538, .7546, .7541).
4. *Private rows*: with k known ids to a row, 1 / k of the rows go to the most frequent ids. At 1000 times less and
   k = 4, a half gave .7560 and a fifth .7572.
5. *Two look-ups*: an id without a row of its own is the mean of two shared ones, so that ids which share one still
   differ. On Frappe at 100 times less, 8 ids to a row, .9342, and .9234 with one look-up; at 50, 100 and 1000 times
   less .7599, .7587 and .7568, and with one .7597, .7589 and .7568. A mean, because ids that own rows then learn as in
   full tables: sums gave .7569 and .7556 at 100 and 1000 times less, and half the learning rate made up for it.
6. *Codes*: where the narrowest rows are too wide, but rotated product codes of full tables are expected to lose at most
   `most_lost` of a look-up's squared length, these are served; full tables are what is trained then. On Frappe (5,389
   ids, d = 10, none rare) at 10 times less .012 is expected to be lost: codes gave .9809, shared rows .9747 (one seed),
   full tables .9835 (means of three); at 100 times less, with .28, .8059 and .9327. On Criteo at 50 times less, with
   .15, both gave the same; at 100 times less, with .24, codes .0012 less than rows.

Features share their rows ("feature multiplexing", arXiv:2305.12102): no feature needs a minimum, and tiny ones, whose
ids are frequent, own theirs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Remap
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.row_storage import pack_tables
from recsys.core.specs import FeatureSpec, RowType, TableSpec
from recsys.embeddings.combiners import Mean, Only
from recsys.embeddings.double_hash import NUM_HASHES, DoubleHashRemap
from recsys.embeddings.frequency import densities, heads_of_known
from recsys.embeddings.method import Identity, MethodConfig, full_bytes, full_table
from recsys.embeddings.pq import PqConfig
from recsys.ops.hashing import salt_for

PREFIX = "auto"


class KnownOrRare(Remap):
    """Rows of `DoubleHashRemap` for ids below `num_known`; all rarer ones read those of id 0, out-of-vocabulary."""

    def __init__(self, num_known: int, rows: dict[str, Any]) -> None:
        super().__init__()
        self.num_known = num_known
        self.rows = DoubleHashRemap(**rows)

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (L, N)."""
        rows: Tensor = self.rows(torch.where(ids < self.num_known, ids, 0))
        return rows

    def rows_needed(self) -> list[int] | None:
        """As `DoubleHashRemap`."""
        return self.rows.rows_needed()


@dataclass(frozen=True, kw_only=True)
class AutoConfig(MethodConfig):
    """One table for all features of a width; see the module for the rule. Hashed features share rows, all their ids.

    Where a row of some of `row_types` would take no less than one of float32 (linear weights), float32 replaces them.

    A data set without counts of look-ups has no rare ids, and the first ids of its features pass for the frequent ones.
    """

    row_types: list[RowType] = field(
        default_factory=lambda: [RowType.FLOAT32, RowType.FLOAT16, RowType.INT8, RowType.INT4]
    )
    rare_lookups: float = 4.0  # ids with at most so many in training are rare, unless they can own rows
    ids_per_row: float = 8.0  # at most, beside rare ids
    most_lost: float = 0.05  # that codes may be expected to lose; 0: rows alone, which train in less memory, too
    seed: int = 0  # of the hash functions, and of k-means

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.row_types:
            raise ConfigError("row_types=[]: rows must be stored somehow. Name at least one, such as [INT8].")
        if not 1 <= self.ids_per_row < math.inf:
            raise ConfigError(
                f"ids_per_row={self.ids_per_row}: must be finite, 1 or more; at 1 no two ids share a row."
            )
        if not 0 <= self.most_lost < 1:
            raise ConfigError(f"most_lost={self.most_lost}: is a share, 0 or more and below 1; at 0 no codes are made.")
        if not 1 <= self.rare_lookups < math.inf:
            raise ConfigError(
                f"rare_lookups={self.rare_lookups}: must be finite, 1 or more; ids seen once are always rare."
            )

    def plan(self, features: Sequence[FeatureSpec]) -> TablePlan:
        """As `MethodConfig.plan`; full tables where codes of these are served."""
        codes = self._codes(features)
        return codes.plan(features) if codes is not None else super().plan(features)

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan one table of the rows that the budget holds, or fewer where few ids would use them; or full tables."""
        if all(feature.num_embeddings is not None for feature in features) and full_bytes(features) <= budget_bytes:
            return TablePlan.merge([full_table(feature, self.init) for feature in features])
        width = features[0].embedding_dim
        useful = [_num_known(feature, 1.0) for feature in features]
        row_type = self._row_type(features, sum(useful), budget_bytes)
        num_rows = max(1, budget_bytes // row_type.row_bytes(width))
        known = self._known(features, useful, num_rows)
        private = _private(features, known, num_rows)
        all_private = sum(private) == sum(known) and all(f.num_embeddings is not None for f in features)
        table = TableSpec(
            # Its row type is what is served; training holds float32, and so the name has to say it.
            name=f"{PREFIX}_{row_type.value}_{features[0].name}",
            num_embeddings=sum(private) if all_private else num_rows,
            embedding_dim=width,
            init=self.init,
        )
        firsts = accumulate(private, initial=0)
        entries = [
            self._entry(feature, table, num_known=of_all, private_rows=(own, first), num_all_private=sum(private))
            for feature, of_all, own, first in zip(features, known, private, firsts, strict=False)
        ]
        return TablePlan(tables=(table,), features=tuple(entries))

    def serving_plan(self, plan: TablePlan) -> TablePlan:
        """Codes of full tables; else the same tables, with the row types that their names tell."""
        if (codes := self._codes_of(plan)) is not None:
            return codes.serving_plan(plan)
        return TablePlan(tables=tuple(map(_served, plan.tables)), features=plan.features)

    def freeze(self, parts: EmbeddingParts) -> EmbeddingParts:
        """Learn codes; or round every row to the nearest values of its type between the row's extremes."""
        if (codes := self._codes_of(parts.plan)) is not None:
            return codes.freeze(parts)
        plan = self.serving_plan(parts.plan)
        return replace(parts, plan=plan, tables=pack_tables(parts.tables, plan.tables))

    def _codes(self, features: Sequence[FeatureSpec]) -> PqConfig | None:
        """What serves trained full tables, where that is better than rows that share."""
        if not self.most_lost or any(feature.num_embeddings is None for feature in features):
            return None
        rest = [feature for feature in features if not self.keeps_full(feature)]
        budget = self.budget_bytes(features) - full_bytes(features) + full_bytes(rest)
        if full_bytes(rest) <= budget:
            return None
        useful = [_num_known(feature, 1.0) for feature in rest]
        codes = PqConfig(
            init=self.init,
            budget_mib=self.budget_mib,
            compression_ratio=self.compression_ratio,
            full_below=self.full_below,
            rotate=True,
            seed=self.seed,
        )
        narrowest = sum(
            known * min(row_type.row_bytes(feature.embedding_dim) for row_type in [RowType.FLOAT32, *self.row_types])
            for known, feature in zip(useful, rest, strict=True)
        )
        if narrowest <= budget:
            return None
        options = codes.share_out(rest, budget_bytes=budget)
        fits = sum(option.num_bytes for option in options) <= budget
        return codes if fits and sum(option.loss for option in options) <= self.most_lost * len(options) else None

    def _codes_of(self, plan: TablePlan) -> PqConfig | None:
        """What serves a plan of `_codes`; None for one of rows."""
        full = all(entry.remap == Component.of(Identity) for entry in plan.features)
        return self._codes([entry.feature for entry in plan.features]) if full else None

    def _row_type(self, features: Sequence[FeatureSpec], num_useful: int, budget_bytes: int) -> RowType:
        width = features[0].embedding_dim
        # A narrow row with its scale and bias may take more than float32: then that is better and smaller.
        smaller = [row_type for row_type in self.row_types if row_type.saves(width)]
        row_types = smaller if len(smaller) == len(self.row_types) else [RowType.FLOAT32, *smaller]
        if all(feature.num_embeddings is not None for feature in features):
            for row_type in sorted(row_types, key=lambda row_type: -row_type.bits):
                if num_useful * row_type.row_bytes(width) <= budget_bytes:
                    return row_type
        return min(row_types, key=lambda row_type: row_type.row_bytes(width))

    def _known(self, features: Sequence[FeatureSpec], useful: Sequence[int], num_rows: int) -> list[int]:
        """How many of each feature's first ids have rows; 0 for hashed features, all of whose ids do."""
        frequent = sum(_num_known(feature, self.rare_lookups) for feature in features)
        wanted = max(num_rows, min(frequent, int(num_rows * self.ids_per_row)))
        first_ids = heads_of_known(features, wanted)
        return [min(most, max(1, count)) for most, count in zip(useful, first_ids, strict=True)]

    def _entry(
        self,
        feature: FeatureSpec,
        table: TableSpec,
        *,
        num_known: int,
        private_rows: tuple[int, int],
        num_all_private: int,
    ) -> FeaturePlan:
        """The feature's entry; `private_rows` is how many it has and the first of them."""
        num_shared = table.num_embeddings - num_all_private
        num_lookups = 1 if num_known == private_rows[0] > 0 or num_shared == 1 else NUM_HASHES
        rows = {
            "num_heads": private_rows[0],
            "first_head": private_rows[1],
            "rows_per_head": 1,
            "shared": [num_all_private, num_shared] if num_shared else [0, 1],  # of none, no id reads any
            "salts": [salt_for(feature.name, lookup, self.seed) for lookup in range(num_lookups)],
        }
        remap = Component.of(KnownOrRare, num_known=num_known, rows=rows)
        if num_known == (feature.num_embeddings or 0):
            remap = Component.of(DoubleHashRemap, **rows)
        combiner = Component.of(Mean if num_lookups > 1 else Only)
        return FeaturePlan(feature=feature, tables=(table.name,) * num_lookups, remap=remap, combiner=combiner)


def _num_known(feature: FeatureSpec, rare_lookups: float) -> int:
    """Ids with more look-ups than `rare_lookups`, by the mean of their octave; 0 of a hashed feature."""
    if feature.num_embeddings is None:
        return 0
    if not feature.octave_counts:
        return feature.num_embeddings
    return max(high for _, high, density in densities(feature) if density > rare_lookups)


def _private(features: Sequence[FeatureSpec], known: Sequence[int], num_rows: int) -> list[int]:
    """How many of each feature's known ids own rows."""
    total, hashed = sum(known), any(feature.num_embeddings is None for feature in features)
    if total <= num_rows and not (hashed and total == num_rows):
        return list(known)
    num_private = min(num_rows * num_rows // max(total, 1), num_rows - 1)
    return [min(most, count) for most, count in zip(known, heads_of_known(features, num_private), strict=True)]


def _served(table: TableSpec) -> TableSpec:
    if not table.name.startswith(f"{PREFIX}_"):
        return table
    return replace(table, row_type=RowType(table.name.split("_")[1]))
