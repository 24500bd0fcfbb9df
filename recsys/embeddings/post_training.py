"""Base of methods that train full tables and compress them when they are frozen.

What they train is the plan of `full` to the last bit of its fingerprint, so that a trained checkpoint of `full` is one
of theirs. The budget bounds what is served.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec
from recsys.embeddings.combiners import Only
from recsys.embeddings.method import Identity, MethodConfig, full_bytes, full_table
from recsys.ops.hashing import salt_for


@dataclass(frozen=True, kw_only=True)
class PostTrainingConfig(MethodConfig):
    """Full tables while training, something smaller afterwards.

    All features are compressed together, whatever their widths: narrow ones reach their floor sooner than wide ones.
    """

    @abstractmethod
    def serve(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """What is served of features; above the budget only where nothing smaller can be planned."""

    @abstractmethod
    def compress(self, served: TablePlan, trained: Mapping[str, Tensor]) -> EmbeddingParts:
        """Give a plan of `serve` its values.

        Args:
            served: the plan.
            trained: float32 (n, embedding_dim) by feature name.
        Returns:
            Parts with `served` as their plan; the same tables give the same parts.
        """

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan one full table per feature, whatever the budget: that bounds what is served."""
        return TablePlan.merge([full_table(feature, self.init) for feature in features])

    def serving_plan(self, plan: TablePlan) -> TablePlan:
        """What is served of a model with full tables.

        Raises:
            ConfigError: a feature of `plan` has no full table.
        """
        kept, served = self._split(plan)
        return TablePlan.merge([kept, served]).reordered([entry.feature.name for entry in plan.features])

    def freeze(self, parts: EmbeddingParts) -> EmbeddingParts:
        """Compress trained tables; see `MethodConfig.freeze`."""
        kept, served = self._split(parts.plan)
        if served == parts.plan.of([entry.feature.name for entry in served.features]):
            return parts
        trained = {e.feature.name: parts.tables[e.tables[0]].detach().cpu() for e in parts.plan.features}
        unchanged = parts.of([entry.feature.name for entry in kept.features])
        names = [entry.feature.name for entry in parts.plan.features]
        return EmbeddingParts.merge([unchanged, self.compress(served, trained)]).reordered(names)

    def _split(self, plan: TablePlan) -> tuple[TablePlan, TablePlan]:
        """(what stays as it is, what is served of the rest)."""
        _check_full(plan)
        features = [entry.feature for entry in plan.features]
        small = [feature for feature in features if self.keeps_full(feature)]
        rest = [feature for feature in features if feature not in small]
        budget = self.budget_bytes(features) - full_bytes(small)
        served = plan.of([feature.name for feature in rest])
        if rest and served.num_bytes > budget:
            served = self.serve(rest, budget_bytes=max(budget, 0))
        return plan.of([feature.name for feature in small]), served


@dataclass(frozen=True, kw_only=True)
class EachAloneConfig(PostTrainingConfig):
    """Each feature compressed on its own, once `serve` has shared out the budget, or served from its full table."""

    seed: int = 0  # of what is drawn at random while compressing

    @abstractmethod
    def compress_one(self, served: TablePlan, table: Tensor, *, generator: torch.Generator) -> EmbeddingParts:
        """Give the plan of one feature, which does not stay full, its values.

        Args:
            served: the plan, of that feature alone.
            table: float32 (n, embedding_dim), as trained.
            generator: of the feature and the seed, whatever other features there are.
        """

    def compress(self, served: TablePlan, trained: Mapping[str, Tensor]) -> EmbeddingParts:
        """Compress every feature that does not stay full."""
        names = [entry.feature.name for entry in served.features]
        return EmbeddingParts.merge([self._one(served.of([name]), trained[name]) for name in names])

    def _one(self, served: TablePlan, table: Tensor) -> EmbeddingParts:
        (entry,) = served.features
        name = entry.feature.name
        if entry.remap == Component.of(Identity):
            return EmbeddingParts(
                plan=served, tables={entry.tables[0]: table}, remaps={name: Identity()}, combiners={name: Only()}
            )
        generator = torch.Generator().manual_seed(salt_for(name, 0, self.seed) & (2**63 - 1))
        return self.compress_one(served, table, generator=generator)


def _check_full(plan: TablePlan) -> None:
    for entry in plan.features:
        if entry.remap != Component.of(Identity) or len(entry.tables) != 1:
            raise ConfigError(
                f"feature {entry.feature.name!r} was trained with {entry.remap.target}, and only trained full tables "
                "can be compressed. Train with embedding=full, or with this method, first."
            )
