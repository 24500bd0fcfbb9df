"""`quotient_remainder`: e = Q[id // c] (x) R[id % c], complementary partitions (KDD 2020, arXiv:1909.02107)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.modules import Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import Distribution, FeatureSpec, Init, TableSpec
from recsys.embeddings.combiners import Product, Sum
from recsys.embeddings.method import FLOAT_BYTES, MethodConfig, full_table, num_ids
from recsys.ops.quotient_remainder import quotient_remainder


class Combine(Enum):
    """How the two rows become one."""

    PRODUCT = "product"
    SUM = "sum"


class QuotientRemainderRemap(Remap):
    """Rows id // c and id % c."""

    def __init__(self, num_remainders: int) -> None:
        super().__init__()
        self.num_remainders = num_remainders

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (2, N): quotients, then remainders."""
        quotient, remainder = quotient_remainder(ids, self.num_remainders)
        return torch.stack([quotient, remainder])

    def rows_needed(self) -> list[int] | None:
        """All remainders; how many quotients there are is up to the ids."""
        return [1, self.num_remainders]


@dataclass(frozen=True, kw_only=True)
class QuotientRemainderConfig(MethodConfig):
    """Two small tables per feature; a feature that would not shrink keeps its full table."""

    combine: Combine = Combine.PRODUCT

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Find the smallest number of remainders, shared by all features, that fits the budget.

        Up to sqrt(n) rows, more remainders mean less memory; there a feature stops, at its floor of about 2 sqrt(n).
        """
        width = features[0].embedding_dim
        sizes = [num_ids(feature) for feature in features]
        low, high = 1, max(math.isqrt(max(sizes)) + 1, 1)
        while low < high:
            middle = (low + high) // 2
            rows = sum(_num_rows(size, _clamped(size, middle)) for size in sizes)
            low, high = (low, middle) if rows * width * FLOAT_BYTES <= budget_bytes else (middle + 1, high)
        return TablePlan.merge([self._plan_one(feature, _clamped(num_ids(feature), low)) for feature in features])

    def _plan_one(self, feature: FeatureSpec, num_remainders: int) -> TablePlan:
        size, width = num_ids(feature), feature.embedding_dim
        if _num_rows(size, num_remainders) >= size:
            return full_table(feature, self.init)
        names = (f"table_{feature.name}_quotient", f"table_{feature.name}_remainder")
        rows = (math.ceil(size / num_remainders), num_remainders)
        inits = (self.init, self._remainder_init(size))
        tables = tuple(
            TableSpec(name=name, num_embeddings=n, embedding_dim=width, init=init)
            for name, n, init in zip(names, rows, inits, strict=True)
        )
        remap = Component.of(QuotientRemainderRemap, num_remainders=num_remainders)
        combiner = Component.of(Product if self.combine is Combine.PRODUCT else Sum)
        return TablePlan(
            tables=tables, features=(FeaturePlan(feature=feature, tables=names, remap=remap, combiner=combiner),)
        )

    def _remainder_init(self, size: int) -> Init:
        """Keep the composed embedding at the scale of `init`.

        Two small factors would multiply to almost nothing, and with them the gradients. So one factor starts as the
        published code of the paper really ran it, U(sqrt(1/n), 1); the other carries sign and scale.
        """
        if self.combine is Combine.SUM:
            return self.init
        low = math.sqrt(1 / size)
        return Init(distribution=Distribution.UNIFORM, center=(1 + low) / 2, scale=(1 - low) / 2)


def _clamped(size: int, num_remainders: int) -> int:
    return max(1, min(num_remainders, math.isqrt(size)))


def _num_rows(size: int, num_remainders: int) -> int:
    return min(size, math.ceil(size / num_remainders) + num_remainders)
