"""What all methods share: the budget, the features that stay full, and the errors about both."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from torch import Tensor, nn

from recsys.core.callback import Callback
from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Remap
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, Init, TableSpec
from recsys.embeddings.combiners import Only

FLOAT_BYTES = 4

WITHOUT_VOCABULARY = ("adapt_emb", "auto", "cafe", "ce", "dhe", "double_hash", "hash", "robe", "unified")
"""Methods that embed hashed keys of any number."""


class Identity(Remap):
    """A row of its own for every id."""

    def forward(self, ids: Tensor) -> Tensor:
        """Return `ids` as rows, int64, shape (1, N)."""
        return ids.unsqueeze(0)


def builds(component: Component, kind: type[nn.Module]) -> bool:
    """True if the component is of that very class."""
    return component.target == Component.of(kind).target


def full_table(feature: FeatureSpec, init: Init) -> TablePlan:
    """The uncompressed table of one feature."""
    table = TableSpec(
        name=f"table_{feature.name}", num_embeddings=num_ids(feature), embedding_dim=feature.embedding_dim, init=init
    )
    entry = FeaturePlan(
        feature=feature, tables=(table.name,), remap=Component.of(Identity), combiner=Component.of(Only)
    )
    return TablePlan(tables=(table,), features=(entry,))


def num_ids(feature: FeatureSpec) -> int:
    """Size of the feature's vocabulary.

    Raises:
        ConfigError: it has none, because its keys are hashed.
    """
    if feature.num_embeddings is None:
        raise ConfigError(
            f"column {feature.source!r} has no vocabulary (encoding: hash), and this method needs to know all its ids. "
            f"Set embedding to one of {', '.join(WITHOUT_VOCABULARY)}, or give the feature a vocabulary."
        )
    return feature.num_embeddings


def expected_ids(feature: FeatureSpec) -> int:
    """Vocabulary size, or for a hashed feature the next power of two above the distinct keys seen in train."""
    return feature.num_embeddings or 2 ** max(1, len(feature.octave_counts))


def full_bytes(features: Sequence[FeatureSpec]) -> int:
    """Bytes of uncompressed float32 tables."""
    return sum(expected_ids(feature) * feature.embedding_dim * FLOAT_BYTES for feature in features)


def fit(make: Callable[[int], TablePlan], low: int, high: int, budget_bytes: int) -> TablePlan:
    """The plan of the largest size that fits; that of `low` if none does, so that the refusal tells the floor.

    Args:
        make: a plan from an integer size; its bytes must not shrink as the size grows.
        low: smallest size.
        high: largest size that makes sense.
        budget_bytes: bound of `num_bytes`.
    """
    while low < high:
        middle = (low + high + 1) // 2
        if make(middle).num_bytes <= budget_bytes:
            low = middle
        else:
            high = middle - 1
    return make(low)


@dataclass(frozen=True, kw_only=True)
class MethodConfig(ABC):
    """Base of all embedding methods.

    The budget (`budget_mib`, or `compression_ratio` = uncompressed bytes / bytes) is what serving all embeddings may
    take, everything counted: tables, codes, pointers, projections, hash networks. A ratio is at least 1; a budget above
    uncompressed bytes, which hash networks or unused rows may fill, is one of `budget_mib`. Features with at most
    `full_below` ids keep full tables, under every method alike.
    """

    init: Init = field(default_factory=Init)
    budget_mib: float | None = None
    compression_ratio: float | None = None
    full_below: int = 0

    def __post_init__(self) -> None:
        if self.budget_mib is not None and self.compression_ratio is not None:
            raise ConfigError(
                "budget_mib and compression_ratio are both set, and each fixes the budget. Set one of them."
            )
        for name in ("budget_mib", "compression_ratio"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name}={value}: must be above 0 and finite.")
        if self.compression_ratio is not None and self.compression_ratio < 1:
            raise ConfigError(
                f"compression_ratio={self.compression_ratio}: is uncompressed bytes / bytes, so it must be 1 or more; "
                f"{1 / self.compression_ratio:g} makes tables that many times smaller. For more bytes than "
                "uncompressed tables take, set budget_mib."
            )
        if self.full_below < 0:
            raise ConfigError(f"full_below={self.full_below}: is a number of ids, 0 or more; 0 keeps no full table.")

    @property
    def label(self) -> str:
        """What messages call it: the option of `embedding=` that makes it."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan features of one width within a budget."""

    def plan(self, features: Sequence[FeatureSpec]) -> TablePlan:
        """Plan all features, in their order.

        Raises:
            ConfigError: the budget cannot be met (the message tells what will do), or a feature does not suit it.
        """
        if not features:
            raise ConfigError("there is no categorical feature to embed. Name at least one in the data set's schema.")
        budget = self.budget_bytes(features)
        kept = [feature for feature in features if self.keeps_full(feature)]
        kept_names = {feature.name for feature in kept}
        rest = [feature for feature in features if feature.name not in kept_names]
        plans = [full_table(feature, self.init) for feature in kept]
        # One width at a time: tables shared by features must have one.
        groups = [list(group) for _, group in groupby(sorted(rest, key=_width), key=_width)]
        plans += self._plan_groups(groups, budget - full_bytes(kept))
        plan = TablePlan.merge(plans).reordered([feature.name for feature in features])
        self._check(plan, budget)
        return plan

    def _plan_groups(self, groups: list[list[FeatureSpec]], budget: int) -> list[TablePlan]:
        """Each group gets the share of the budget that it has of uncompressed bytes; what it leaves goes to the next.

        A group that cannot do with its share takes what it needs, and the others share the rest.
        """
        left, waiting = budget, sum(full_bytes(group) for group in groups)
        plans = []
        for number, group in enumerate(groups):
            share = max(left * full_bytes(group) // max(waiting, 1), 0)
            plan = self.plan_group(group, budget_bytes=share)
            needed = self.serving_plan(plan).num_bytes
            if needed > share and len(groups) > 1:
                others = self._plan_groups(groups[:number] + groups[number + 1 :], budget - needed)
                return [*others[:number], plan, *others[number:]]
            left, waiting = left - needed, waiting - full_bytes(group)
            plans.append(plan)
        return plans

    def keeps_full(self, feature: FeatureSpec) -> bool:
        """True if the feature has a full table under every method, for its few ids."""
        return feature.num_embeddings is not None and feature.num_embeddings <= self.full_below

    def callbacks(self, plan: TablePlan) -> list[Callback]:
        """What must act while a model with this plan trains; most methods need nothing.

        `plan` is that of the features that this method has planned; tables of others may be in the model beside.
        """
        return []

    def serving_plan(self, plan: TablePlan) -> TablePlan:
        """The plan of what is served once a model with `plan` is trained; `plan` itself for most methods.

        Budgets bound this one. It needs no weights, so that a budget is checked before any training.
        """
        return plan

    def freeze(self, parts: EmbeddingParts) -> EmbeddingParts:
        """What is served of trained parts: codes and codebooks, narrow rows, pruned rows. Nothing changes for most.

        Returns:
            Parts of `serving_plan(parts.plan)`; the same parts give the same result.
        """
        return parts

    def files(self) -> list[Path]:
        """Files whose content is part of this configuration."""
        return []

    def budget_bytes(self, features: Sequence[FeatureSpec]) -> int:
        """Bytes that the plan may take; those of uncompressed tables where no budget is set."""
        if self.budget_mib is not None:
            return int(self.budget_mib * 2**20)
        return int(full_bytes(features) / (self.compression_ratio or 1.0))

    def _check(self, plan: TablePlan, budget: int) -> None:
        needed = self.serving_plan(plan).num_bytes
        if needed > budget:
            enough = math.ceil(needed / 2**20 * 1e4) / 1e4  # rounded up, so that the advised figure is accepted
            raise ConfigError(
                f"{self.label} needs {needed:,} bytes, above the budget of {budget:,} "
                f"(budget_mib={self.budget_mib}, compression_ratio={self.compression_ratio}, "
                f"full_below={self.full_below}). "
                f"Raise the budget to {enough:.4f} MiB or more, or choose another method."
            )


def _width(feature: FeatureSpec) -> int:
    return feature.embedding_dim


def names_feature(feature: FeatureSpec, names: Sequence[str]) -> bool:
    """True if `names` holds the feature's name, or that of something it reads or of its column."""
    return not _names_of(feature).isdisjoint(names)


def check_names(key: str, names: Sequence[str], features: Sequence[FeatureSpec]) -> None:
    """Raise ConfigError if `names` holds something that is no feature and no column."""
    known = {name for feature in features for name in _names_of(feature)}
    unknown = sorted(set(names) - known)
    if unknown:
        raise ConfigError(f"{key} names {unknown}, which the data set does not have. It has {sorted(known)}.")


def _names_of(feature: FeatureSpec) -> set[str]:
    return {name for read in feature.reads for name in (read.name, read.source)}
