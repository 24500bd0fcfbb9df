"""Tables narrower than the embedding, and the matrices that widen their rows: what `narrow` and `mde` share."""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from recsys.core.component import Component
from recsys.core.modules import Combiner
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, Init, TableSpec
from recsys.embeddings.method import FLOAT_BYTES, MethodConfig, full_bytes, full_table, num_ids


class Projection(Combiner):
    """A narrow row times a matrix without bias (Ginart et al., arXiv:1909.11810, section 3)."""

    def __init__(self, row_dim: int, embedding_dim: int) -> None:
        super().__init__()
        # With this deviation an embedding starts, and under Adagrad moves, at the scale of a full table's.
        self.weight = nn.Parameter(torch.empty(row_dim, embedding_dim).normal_(0.0, row_dim**-0.5))

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return the projected row, float32, shape (N, embedding_dim)."""
        return rows[0] @ self.weight


def projected_bytes(num_rows: int, width: int, embedding_dim: int) -> int:
    """Bytes of a table of `width`, with its projection where that is not the whole `embedding_dim`."""
    return (num_rows + (embedding_dim if width < embedding_dim else 0)) * width * FLOAT_BYTES


def worthwhile_width(num_rows: int, width: int, embedding_dim: int) -> int:
    """`width`, or `embedding_dim` where a narrow table would with its projection take no less memory.

    The memory of what is returned never shrinks as `width` grows.
    """
    full = projected_bytes(num_rows, embedding_dim, embedding_dim)
    return width if projected_bytes(num_rows, width, embedding_dim) < full else embedding_dim


def narrow_table(feature: FeatureSpec, width: int, init: Init) -> TablePlan:
    """The table of one feature at `width`, with its projection; the full table where that takes no more."""
    size = num_ids(feature)
    width = worthwhile_width(size, width, feature.embedding_dim)
    if width == feature.embedding_dim:
        return full_table(feature, init)
    table = TableSpec(name=f"table_{feature.name}", num_embeddings=size, embedding_dim=width, init=init)
    remap = full_table(feature, init).features[0].remap
    combiner = Component.of(Projection, row_dim=width, embedding_dim=feature.embedding_dim)
    entry = FeaturePlan(feature=feature, tables=(table.name,), remap=remap, combiner=combiner)
    return TablePlan(tables=(table,), features=(entry,))


class ProjectedConfig(MethodConfig):
    """Base of methods that make tables narrower."""

    def plan(self, features: Sequence[FeatureSpec]) -> TablePlan:
        """Plan all features; see `MethodConfig.plan`.

        Linear weights, features of width 1, cannot be narrower: they keep full tables and the others get what is left.
        Were they planned as a group with a share of the budget, they would overspend it and nobody make up for that.
        """
        kept = [f for f in features if f.embedding_dim == 1 or num_ids(f) <= self.full_below]
        if len(kept) == len(features):
            return super().plan(features)
        names = {feature.name for feature in kept}
        rest = sorted((f for f in features if f.name not in names), key=_width)
        budget = self.budget_bytes(features)
        left = budget - full_bytes(kept)
        plans = [full_table(feature, self.init) for feature in kept]
        for _, group in groupby(rest, key=_width):
            members = list(group)
            share = max(left * full_bytes(members) // full_bytes(rest), 0)
            plans.append(self.plan_group(members, budget_bytes=share))
        plan = TablePlan.merge(plans).reordered([feature.name for feature in features])
        self._check(plan, budget)
        return plan


def _width(feature: FeatureSpec) -> int:
    return feature.embedding_dim
