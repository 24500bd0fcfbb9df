"""`tt_rec`: a table as a tensor train of three cores (TT-Rec; Yin et al., MLSys 2021, arXiv:2101.11714).

With n <= n1 n2 n3 ids and d = d1 d2 d3, id = (i1 n2 + i2) n3 + i3 has the embedding

    e[j1, j2, j3] = sum over a, b of  G1[i1][j1, a] * G2[i2][a, j2, b] * G3[i3][b, j3],    a, b = 1..r.

The cores are three tables of n1, n2 and n3 rows, of widths d1 r, r d2 r and r d3, and the combiner is two batched
matrix products an id: 2 r d1 d2 (r + d3) floating-point operations, which is what this method trades for memory. It is
not linear, so ids of a multi-valued feature are combined one by one, then pooled.

The rank r is the largest that fits the budget, the same for all features, and bounded by the widest row that FBGEMM
trains: r d2 r <= 1024, that is 32 where d2 = 1, 22 where d2 = 2 and 16 where d2 = 4. There a feature's memory ends, at
about 1100 floats times 3 n^(1/3), however much more the budget would hold. A feature that its cores would not shrink
keeps its full table.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Combiner, Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import Distribution, FeatureSpec, Init, TableSpec
from recsys.embeddings.method import MethodConfig, fit, full_bytes, full_table, num_ids

MAX_WIDTH = 1024
"""Widest row that FBGEMM trains."""


class DigitsRemap(Remap):
    """Digits of an id, the first one the most significant, as the rows of the cores."""

    def __init__(self, num_rows: list[int]) -> None:
        """Keep the radices: rows of the three cores."""
        super().__init__()
        self.second, self.third = num_rows[1], num_rows[2]

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (3, N)."""
        above = torch.div(ids, self.third, rounding_mode="floor")
        first = torch.div(above, self.second, rounding_mode="floor")
        return torch.stack([first, above - first * self.second, ids - above * self.third])

    def rows_needed(self) -> list[int] | None:
        """All rows of the last two cores; how many first digits there are is up to the ids."""
        return [1, self.second, self.third]


class TensorTrain(Combiner):
    """Contract the cores of each id."""

    linear: bool = False

    def __init__(self, dims: list[int], rank: int) -> None:
        """Keep the factors d1, d2, d3 of the embedding's width, and the rank."""
        super().__init__()
        self.dims, self.rank = dims, rank

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return embeddings, shape (N, d1 * d2 * d3)."""
        num, (d1, d2, d3), rank = rows[0].shape[0], (self.dims[0], self.dims[1], self.dims[2]), self.rank
        left = torch.bmm(rows[0].reshape(num, d1, rank), rows[1].reshape(num, rank, d2 * rank))
        whole = torch.bmm(left.reshape(num, d1 * d2, rank), rows[2].reshape(num, rank, d3))
        return whole.reshape(num, d1 * d2 * d3)


@dataclass(frozen=True, kw_only=True)
class TTRecConfig(MethodConfig):
    """Three cores per feature, of one rank for all features.

    `init` tells the scale of the composed embeddings, and is that of features which stay full. The cores start as the
    paper found best: normal without the middle, so that no factor is near zero. A composed value is a sum of r^2
    products of three, of variance r^2 s^6 with cores of deviation s, so s = (deviation / r)^(1/3). The published code
    scales by (3 n)^(-1/6) alone, and starts 14 r times wider than the uniform table it means to resemble.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init.center:
            raise ConfigError(
                f"init.center={self.init.center}: embeddings composed of cores are centred on zero. Set it to 0."
            )

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan the largest rank that fits."""
        high = max_rank(factors(features[0].embedding_dim))

        def make(rank: int) -> TablePlan:
            return TablePlan.merge([self._plan_one(feature, rank) for feature in features])

        return fit(make, 1, high, budget_bytes)

    def _plan_one(self, feature: FeatureSpec, rank: int) -> TablePlan:
        rows, dims = radices(num_ids(feature)), factors(feature.embedding_dim)
        widths = [dims[0] * rank, rank * dims[1] * rank, rank * dims[2]]
        init = Init(distribution=Distribution.TAILS, scale=(self.init.deviation / rank) ** (1 / 3))
        tables = tuple(
            TableSpec(name=f"table_{feature.name}_core{core}", num_embeddings=num, embedding_dim=width, init=init)
            for core, (num, width) in enumerate(zip(rows, widths, strict=True), start=1)
        )
        if sum(table.num_bytes for table in tables) >= full_bytes([feature]):
            return full_table(feature, self.init)
        entry = FeaturePlan(
            feature=feature,
            tables=tuple(table.name for table in tables),
            remap=Component.of(DigitsRemap, num_rows=rows),
            combiner=Component.of(TensorTrain, dims=dims, rank=rank),
        )
        return TablePlan(tables=tables, features=(entry,))


def radices(num: int) -> list[int]:
    """Three numbers of rows, ascending and about equal, whose product is `num` or more by as little as that allows."""
    large = _ceil_root(num, 3)
    middle = _ceil_root(-(-num // large), 2)
    return [-(-num // (large * middle)), middle, large]


def _ceil_root(num: int, degree: int) -> int:
    """The least integer whose power is `num` or more: float roots are off by one at large powers."""
    root: int = max(1, round(math.pow(num, 1 / degree)))
    while root**degree < num:
        root += 1
    while root > 1 and (root - 1) ** degree >= num:
        root -= 1
    return root


def factors(embedding_dim: int) -> list[int]:
    """Three ascending factors of a width whose sum is least: 16 = 2 * 2 * 4."""
    triples = [
        (d1, d2, embedding_dim // (d1 * d2))
        for d1 in range(1, math.isqrt(embedding_dim) + 1)
        if embedding_dim % d1 == 0
        for d2 in range(d1, math.isqrt(embedding_dim // d1) + 1)
        if embedding_dim % (d1 * d2) == 0
    ]
    return list(min(triples, key=sum))


def max_rank(dims: list[int]) -> int:
    """The largest rank whose widest core row is not above `MAX_WIDTH`."""
    return min(math.isqrt(MAX_WIDTH // dims[1]), MAX_WIDTH // dims[0], MAX_WIDTH // dims[2])
