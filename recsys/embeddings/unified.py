"""`unified`: one table for all features (feature multiplexing; Coleman et al., NeurIPS 2023, arXiv:2305.12102)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import Distribution, FeatureSpec, Init, TableSpec
from recsys.embeddings.combiners import Concat, Only
from recsys.embeddings.hash import HashRemap
from recsys.embeddings.method import FLOAT_BYTES, MethodConfig, check_names, full_bytes, full_table, names_feature
from recsys.ops.hashing import salt_for


@dataclass(frozen=True, kw_only=True)
class UnifiedConfig(MethodConfig):
    """Every feature reads c rows of one table, each look-up with a hash of its own, and concatenates them.

    `num_lookups` splits the asked width d into c rows of width d / c. `lookups` overrides c for some features at that
    row width, so their embedding becomes c * d / num_lookups wide: the paper's variable number of look-ups. At equal
    bytes c look-ups of width d / c share c times the rows. `alone` is for what the paper keeps without collisions, such
    as a gender. Different features collide on purpose: a reader with weights of its own for each feature learns to tell
    them apart, which summing features up (a factorization machine) does not. The embedding's initial scale matters,
    hence another default than elsewhere; compare with `hash` at equal `init`.
    """

    init: Init = field(default_factory=lambda: Init(distribution=Distribution.UNIFORM, scale=0.05))
    num_lookups: int = 1
    lookups: dict[str, int] = field(default_factory=dict)
    alone: list[str] = field(default_factory=list)  # features that keep a full table of their own
    seed: int = 0  # of the hash functions

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, count in {"num_lookups": self.num_lookups, **self.lookups}.items():
            if count < 1:
                raise ConfigError(f"look-ups of {name!r}={count}: must be 1 or more.")

    def plan(self, features: Sequence[FeatureSpec]) -> TablePlan:
        """Plan all features; see `MethodConfig.plan`."""
        check_names("alone", self.alone, features)
        check_names("lookups", list(self.lookups), features)
        sharing = {feature.name for feature in features if not self._stays_full(feature)}
        unused = sorted(set(self.lookups) - sharing)
        if unused:
            raise ConfigError(
                f"lookups names {unused}, which would change nothing: such a feature keeps a full table "
                f"(alone={self.alone}, full_below={self.full_below}), or only another feature reads that column. "
                f"Remove it, or name one of {sorted(sharing)}."
            )
        return super().plan(features)

    def _stays_full(self, feature: FeatureSpec) -> bool:
        return self.keeps_full(feature) or names_feature(feature, self.alone)

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan one table of as many rows as the budget holds, beside the features that stay alone."""
        alone = [feature for feature in features if names_feature(feature, self.alone)]
        shared = [feature for feature in features if not names_feature(feature, self.alone)]
        plans = [full_table(feature, self.init) for feature in alone]
        if shared:
            plans.append(self._plan_shared(shared, budget_bytes - full_bytes(alone)))
        return TablePlan.merge(plans)

    def _plan_shared(self, features: Sequence[FeatureSpec], budget_bytes: int) -> TablePlan:
        width = features[0].embedding_dim
        row_dim = self._row_dim(width)
        num_rows = max(1, budget_bytes // (row_dim * FLOAT_BYTES))
        if all(feature.num_embeddings for feature in features):  # more rows than there is to look up would lie idle
            num_rows = min(num_rows, sum((f.num_embeddings or 0) * self._num_lookups(f, row_dim) for f in features))
        table = TableSpec(
            name=f"table_unified_{features[0].name}", num_embeddings=num_rows, embedding_dim=row_dim, init=self.init
        )
        entries = tuple(self._plan_one(feature, table) for feature in features)
        return TablePlan(tables=(table,), features=entries)

    def _row_dim(self, width: int) -> int:
        if width < self.num_lookups:  # a linear weight of width 1 cannot be split
            return width
        if width % self.num_lookups:
            raise ConfigError(
                f"num_lookups={self.num_lookups} does not divide the embedding width {width}. "
                f"Choose a divisor of {width}, or another model.embedding_dim."
            )
        return width // self.num_lookups

    def _num_lookups(self, feature: FeatureSpec, row_dim: int) -> int:
        return self.lookups.get(feature.name, feature.embedding_dim // row_dim)

    def _plan_one(self, feature: FeatureSpec, table: TableSpec) -> FeaturePlan:
        count = self._num_lookups(feature, table.embedding_dim)
        salts = [salt_for(feature.name, lookup, self.seed) for lookup in range(count)]
        return FeaturePlan(
            feature=replace(feature, embedding_dim=count * table.embedding_dim),
            tables=(table.name,) * count,
            remap=Component.of(HashRemap, num_rows=table.num_embeddings, salts=salts),
            combiner=Component.of(Concat if count > 1 else Only),
        )
