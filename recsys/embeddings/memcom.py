"""`memcom`: a shared row times a scalar of the id's own (MEmCom; Pansare et al., MLSys 2022, arXiv:2203.10135)."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.modules import Combiner, Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, Init, TableSpec
from recsys.embeddings.hash import HashConfig
from recsys.embeddings.method import FLOAT_BYTES, MethodConfig, full_bytes, full_table, num_ids


class MemComRemap(Remap):
    """The shared row id % m, and the id's own row of scalars."""

    def __init__(self, num_shared: int) -> None:
        super().__init__()
        self.num_shared = num_shared

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (2, N): the shared ones, then the own ones."""
        return torch.stack([ids % self.num_shared, ids])

    def rows_needed(self) -> list[int] | None:
        """All shared rows; how many ids there are it does not know."""
        return [self.num_shared, 1]


class ScaledRow(Combiner):
    """U * (1 + v), or U * (1 + v) + w: the scalars lie in the second row, v first.

    The table holds what v differs from 1 by: both scalars then start at 0, and a decay of weights draws v to 1.
    """

    linear: bool = False

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return embeddings, float32, (N, D), of `rows` (N, D) and (N, 1), or (N, 2) with `bias`."""
        scaled = rows[0] * (1 + rows[1][:, 0:1])
        return scaled + rows[1][:, 1:2] if self.bias else scaled


@dataclass(frozen=True, kw_only=True)
class MemComConfig(MethodConfig):
    """Per feature, m shared rows read by id % m and one scalar an id (two with `bias`).

    Ids rank by frequency, so the m most frequent ones share their rows with rarer ones only.
    The floor is the scalars and one row: a vocabulary shrinks by embedding_dim at most (half that with `bias`). Where
    scalars would take all the width there is (a linear weight), they save nothing: those features are hashed as `hash`
    does it, so that a model of embeddings and linear weights can meet a budget.
    """

    bias: bool = False  # the paper has both forms, its abstract this one; on Criteo at 5x AUC .7482, with bias .7531
    seed: int = 0  # of the hash functions of features too narrow for scalars

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Give every feature the same share of shared rows, as many as fit."""
        sizes = [num_ids(feature) for feature in features]
        if budget_bytes >= full_bytes(features):
            return TablePlan.merge([full_table(feature, self.init) for feature in features])
        if features[0].embedding_dim <= self._num_scalars:
            return HashConfig(init=self.init, seed=self.seed).plan_group(features, budget_bytes=budget_bytes)

        def floats(step: int) -> int:
            return sum(self._floats(f, _num_shared(f, step, max(sizes))) for f in features)

        step = bisect_right(range(max(sizes) + 1), budget_bytes // FLOAT_BYTES, key=floats) - 1
        plans = [self._plan_one(feature, _num_shared(feature, max(step, 0), max(sizes))) for feature in features]
        return TablePlan.merge(plans)

    @property
    def _num_scalars(self) -> int:
        return 2 if self.bias else 1

    def _floats(self, feature: FeatureSpec, num_shared: int) -> int:
        size, width = num_ids(feature), feature.embedding_dim
        return min(size * width, size * self._num_scalars + num_shared * width)

    def _plan_one(self, feature: FeatureSpec, num_shared: int) -> TablePlan:
        size, width = num_ids(feature), feature.embedding_dim
        if self._floats(feature, num_shared) == size * width:
            return full_table(feature, self.init)
        rows = TableSpec(
            name=f"table_{feature.name}_shared", num_embeddings=num_shared, embedding_dim=width, init=self.init
        )
        scalars = TableSpec(
            name=f"table_{feature.name}_scalars",
            num_embeddings=size,
            embedding_dim=self._num_scalars,
            init=Init(scale=0.0),
        )
        entry = FeaturePlan(
            feature=feature,
            tables=(rows.name, scalars.name),
            remap=Component.of(MemComRemap, num_shared=num_shared),
            combiner=Component.of(ScaledRow, bias=self.bias),
        )
        return TablePlan(tables=(rows, scalars), features=(entry,))


def _num_shared(feature: FeatureSpec, step: int, steps: int) -> int:
    return max(1, num_ids(feature) * step // steps)
