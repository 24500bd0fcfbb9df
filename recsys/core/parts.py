"""`EmbeddingParts`: all that embeds, with its values. What methods freeze, evaluation scores and export scripts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from recsys.core.modules import Combiner, Remap
from recsys.core.plan import TablePlan


@dataclass(frozen=True, kw_only=True)
class EmbeddingParts:
    """A plan with the values of everything in it, whole and on the CPU."""

    plan: TablePlan
    tables: Mapping[str, Tensor]  # by name; float32 (num_embeddings, embedding_dim), or packed as its `row_type` says
    remaps: Mapping[str, Remap]  # by feature name
    combiners: Mapping[str, Combiner]  # by feature name

    def of(self, features: Sequence[str]) -> "EmbeddingParts":
        """The parts of some features alone."""
        plan = self.plan.of(features)
        return EmbeddingParts(
            plan=plan,
            tables={table.name: self.tables[table.name] for table in plan.tables},
            remaps={entry.feature.name: self.remaps[entry.feature.name] for entry in plan.features},
            combiners={entry.feature.name: self.combiners[entry.feature.name] for entry in plan.features},
        )

    @staticmethod
    def merge(parts: Sequence["EmbeddingParts"]) -> "EmbeddingParts":
        """Join parts of disjoint features, in order."""
        return EmbeddingParts(
            plan=TablePlan.merge([part.plan for part in parts]),
            tables={name: table for part in parts for name, table in part.tables.items()},
            remaps={name: remap for part in parts for name, remap in part.remaps.items()},
            combiners={name: combiner for part in parts for name, combiner in part.combiners.items()},
        )

    def reordered(self, names: Sequence[str]) -> "EmbeddingParts":
        """The same parts with features in the order of `names`."""
        return EmbeddingParts(
            plan=self.plan.reordered(names), tables=self.tables, remaps=self.remaps, combiners=self.combiners
        )
