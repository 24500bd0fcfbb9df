"""`hash_weighted`: hashed rows, weighted by the id ("hash embeddings"; Svenstrup et al., 2017, arXiv:1709.03933)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Combiner, Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, Init, TableSpec
from recsys.embeddings.hash import HashConfig
from recsys.embeddings.method import FLOAT_BYTES, MethodConfig, full_bytes, full_table, num_ids
from recsys.ops.hashing import hash_rows_into, salt_for


class HashWeightedRemap(Remap):
    """The id's own row of weights, then one component row for each salt."""

    salts: Tensor

    def __init__(self, num_rows: int, salts: list[int]) -> None:
        super().__init__()
        self.num_rows = num_rows
        self.register_buffer("salts", torch.tensor(salts, dtype=torch.int64), persistent=False)  # part of the plan

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (1 + len(salts), N): `ids`, then rows in [0, num_rows)."""
        rows = torch.empty([1 + self.salts.numel(), ids.numel()], dtype=torch.int64, device=ids.device)
        rows[0] = ids
        hash_rows_into(rows[1:], ids, self.salts, self.num_rows)
        return rows

    def rows_needed(self) -> list[int] | None:
        """All components; how many ids there are it does not know."""
        return [1] + [self.num_rows] * self.salts.numel()


class WeightedSum(Combiner):
    """Sum of the rows after the first, each times its weight, of which the first holds what it differs from 1 by.

    Stored weights so start at 0, and a decay of weights draws them to 1, as it does with `memcom`.
    """

    linear: bool = False

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return sum_k p_k c_k, float32, (N, D), of `rows`: p - 1 (N, k), then k components (N, D)."""
        weights = 1 + rows[0]
        total = rows[1] * weights[:, 0:1]
        for k in range(2, len(rows)):
            total = total + rows[k] * weights[:, k - 1 : k]
        return total


@dataclass(frozen=True, kw_only=True)
class HashWeightedConfig(MethodConfig):
    """e_x = sum_k p_k(x) C[h_k(x)]: every id owns `num_components` weights, all share the pool C of component rows.

    Equation (1) of the paper, without its option to append the weights to the embedding. Departures: the weights are
    looked up by the id itself, not by a hash of it, as vocabularies are known here; they start at 1, so that the
    method starts as a sum of hashed rows; one pool serves all features of a width, each with hash functions of its own
    (feature multiplexing, arXiv:2305.12102). Components start so that the composed embedding has the scale of `init`.

    Weights come first in the budget and are its floor, with one component row: a vocabulary shrinks by less than
    embedding_dim / num_components. Weights of an id as many as its embedding has values save nothing: that is refused,
    but for linear weights, which are hashed as `hash` does it, so that a model with both can meet a budget.
    """

    num_components: int = 2
    seed: int = 0  # of the hash functions

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_components < 1:
            raise ConfigError(f"num_components={self.num_components}: must be 1 or more; the paper takes 2.")

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan a table of weights for each feature and, of what is left, one pool for all.

        Raises:
            ConfigError: the budget asks for less than full tables, and weights alone would take as much as these.
        """
        width, total = features[0].embedding_dim, sum(num_ids(feature) for feature in features)
        if width <= self.num_components and budget_bytes < full_bytes(features):
            if width == 1:
                return HashConfig(init=self.init, seed=self.seed).plan_group(features, budget_bytes=budget_bytes)
            raise ConfigError(
                f"num_components={self.num_components}: so many weights of every id take as much as full tables of "
                f"width {width} ({', '.join(feature.name for feature in features)}). Set num_components below {width}, "
                "or embedding=hash."
            )
        floor_bytes = (total * self.num_components + width) * FLOAT_BYTES
        if full_bytes(features) <= max(budget_bytes, floor_bytes):
            return TablePlan.merge([full_table(feature, self.init) for feature in features])
        left = budget_bytes // FLOAT_BYTES - total * self.num_components
        # More components than there are look-ups of different ids would lie idle.
        pool = TableSpec(
            name=f"table_components_{features[0].name}",
            num_embeddings=min(max(1, left // width), total * self.num_components),
            embedding_dim=width,
            init=self._component_init(),
        )
        plans = [self._plan_one(feature, pool) for feature in features]
        return TablePlan(tables=(pool, *(table for table, _ in plans)), features=tuple(entry for _, entry in plans))

    def _component_init(self) -> Init:
        spread = self.num_components**-0.5  # k independent rows add up to k times the variance of one
        return replace(self.init, center=self.init.center * spread, scale=self.init.scale * spread)

    def _plan_one(self, feature: FeatureSpec, pool: TableSpec) -> tuple[TableSpec, FeaturePlan]:
        weights = TableSpec(
            name=f"table_{feature.name}_weights",
            num_embeddings=num_ids(feature),
            embedding_dim=self.num_components,
            init=Init(scale=0.0),
        )
        salts = [salt_for(feature.name, component, self.seed) for component in range(self.num_components)]
        entry = FeaturePlan(
            feature=feature,
            tables=(weights.name, *(pool.name,) * self.num_components),
            remap=Component.of(HashWeightedRemap, num_rows=pool.num_embeddings, salts=salts),
            combiner=Component.of(WeightedSum),
        )
        return weights, entry
