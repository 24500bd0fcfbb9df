"""`quotient_remainder`: a small table per digit of the id (complementary partitions; KDD 2020, arXiv:1909.02107)."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import Distribution, FeatureSpec, Init, TableSpec
from recsys.embeddings.combiners import Concat, Product, Sum
from recsys.embeddings.method import FLOAT_BYTES, MethodConfig, full_table, num_ids
from recsys.ops.quotient_remainder import quotient_remainder


class Combine(Enum):
    """How the rows of the parts become one embedding."""

    PRODUCT = "product"
    SUM = "sum"
    CONCAT = "concat"  # of parts d / num_parts wide


COMBINERS = {Combine.PRODUCT: Product, Combine.SUM: Sum, Combine.CONCAT: Concat}


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


class MixedRadixRemap(Remap):
    """Digits of the id: id % r_0, id // r_0 % r_1, and so on; the last is what is left, below its radix for valid ids.

    Distinct ids have distinct digits ("generalized quotient-remainder partitions", section 3.1 of the paper).
    """

    def __init__(self, radices: list[int]) -> None:
        super().__init__()
        self.radices = radices

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (len(radices), N), lowest digit first."""
        digits: list[Tensor] = []
        for radix in self.radices[:-1]:
            ids, digit = quotient_remainder(ids, radix)
            digits.append(digit)
        digits.append(ids)
        return torch.stack(digits)

    def rows_needed(self) -> list[int] | None:
        """The radices, but for the last: how far that one goes is up to the ids."""
        return [*self.radices[:-1], 1]


@dataclass(frozen=True, kw_only=True)
class QuotientRemainderConfig(MethodConfig):
    """`num_parts` tables per feature, one a digit of the id; a feature that would not shrink keeps its full table.

    The lowest digit gets all rows that the budget leaves, the others are as small as can be. So ids below that radix,
    the frequent ones, differ from each other in a row of the largest table, and share it with rare ids only. Published
    code keeps the number of remainders small instead, which makes neighbours share, so the most frequent ids: on Criteo
    at 20x, AUC .738 rather than .753 (two seeds; and .748 with the factors' initial weights the other way round).
    The floor of a feature of n ids is about num_parts * n ** (1 / num_parts) rows, d / num_parts wide with `concat`.
    Concatenation halves a row's width (for two parts) before it drops a row, so it pays at high ratios only. What has
    width 1 (a linear weight) cannot be split, and is summed.
    """

    combine: Combine = Combine.PRODUCT
    num_parts: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_parts < 2:
            raise ConfigError(
                f"num_parts={self.num_parts}: an id has to be split into 2 parts or more. Set 2, or use embedding=full."
            )

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Give every feature the same share of its uncompressed bytes, or its floor where that is more."""
        part_dim = self._part_dim(features[0].embedding_dim)
        sizes = [num_ids(feature) for feature in features]
        # Counted in rows of `part_dim`.
        wholes = [size * (features[0].embedding_dim // part_dim) for size in sizes]
        floors = [
            min(whole, sum(smallest_radices(size, self.num_parts))) for size, whole in zip(sizes, wholes, strict=True)
        ]
        steps = max(wholes)

        def shares(step: int) -> list[int]:
            return [max(floor, whole * step // steps) for floor, whole in zip(floors, wholes, strict=True)]

        budget_rows = budget_bytes // (part_dim * FLOAT_BYTES)
        step = bisect_right(range(steps + 1), budget_rows, key=lambda step: sum(shares(step))) - 1
        plans = zip(features, shares(max(step, 0)), strict=True)
        return TablePlan.merge([self._plan_one(feature, num_rows, part_dim) for feature, num_rows in plans])

    def _part_dim(self, width: int) -> int:
        if self._combine_at(width) is not Combine.CONCAT:
            return width
        if width % self.num_parts:
            raise ConfigError(
                f"num_parts={self.num_parts} does not divide the embedding width {width}, so combine=concat cannot "
                f"make that of equal parts. Choose a divisor of {width}, another model.embedding_dim, or combine=sum."
            )
        return width // self.num_parts

    def _combine_at(self, width: int) -> Combine:
        return Combine.SUM if width == 1 and self.combine is Combine.CONCAT else self.combine

    def _plan_one(self, feature: FeatureSpec, num_rows: int, part_dim: int) -> TablePlan:
        size = num_ids(feature)
        if num_rows * part_dim >= size * feature.embedding_dim:
            return full_table(feature, self.init)
        radices = radices_within(size, self.num_parts, num_rows)
        inits = self._inits(size, self._combine_at(feature.embedding_dim))
        parts = [f"part{number}" for number in range(self.num_parts)]
        remap = Component.of(MixedRadixRemap, radices=radices)
        if self.num_parts == 2:
            parts, radices, inits = ["quotient", "remainder"], radices[::-1], inits[::-1]
            remap = Component.of(QuotientRemainderRemap, num_remainders=radices[1])
        tables = tuple(
            TableSpec(name=f"table_{feature.name}_{part}", num_embeddings=rows, embedding_dim=part_dim, init=init)
            for part, rows, init in zip(parts, radices, inits, strict=True)
        )
        combiner = Component.of(COMBINERS[self._combine_at(feature.embedding_dim)])
        names = tuple(table.name for table in tables)
        entry = FeaturePlan(feature=feature, tables=names, remap=remap, combiner=combiner)
        return TablePlan(tables=tables, features=(entry,))

    def _inits(self, size: int, combine: Combine) -> list[Init]:
        """Initial weights by digit, lowest first: composed, they have the mean square of `init`.

        Small factors would multiply to almost nothing, and with them the gradients. So all factors but the first start
        as the published code of the paper really ran them, U(sqrt(1/n), 1); the first, of the largest table, carries
        sign and scale, and makes up for their mean square below 1.
        """
        if combine is Combine.CONCAT:
            return [self.init] * self.num_parts
        if combine is Combine.SUM:
            return [_scaled(self.init, self.num_parts**-0.5)] * self.num_parts
        low = math.sqrt(1 / size)
        factor = Init(distribution=Distribution.UNIFORM, center=(1 + low) / 2, scale=(1 - low) / 2)
        mean_square = (1 + low + low**2) / 3
        others = self.num_parts - 1
        return [_scaled(self.init, mean_square ** (-others / 2)), *[factor] * others]


def _scaled(init: Init, factor: float) -> Init:
    return replace(init, center=init.center * factor, scale=init.scale * factor)


def smallest_radices(size: int, num_parts: int) -> list[int]:
    """Radices of `num_parts` digits for ids in [0, size) with the smallest sum, largest first.

    Of all radices with one sum those that differ by 1 at most have the largest product, so only they matter.
    """
    base = max(1, math.floor(size ** (1 / num_parts)))
    while (base + 1) ** num_parts <= size:  # the float root may be one off
        base += 1
    while base > 1 and base**num_parts > size:
        base -= 1
    larger = next(n for n in range(num_parts + 1) if (base + 1) ** n * base ** (num_parts - n) >= size)
    return [base + 1] * larger + [base] * (num_parts - larger)


def radices_within(size: int, num_parts: int, num_rows: int) -> list[int]:
    """Radices for ids in [0, size) that sum up to `num_rows` at most, with the first one as large as is of use.

    `num_rows` must be `sum(smallest_radices(size, num_parts))` or more.
    """
    first = min(num_rows, size)
    while True:
        rest = smallest_radices(math.ceil(size / first), num_parts - 1)
        if first + sum(rest) <= num_rows:
            return [first, *rest]
        first = num_rows - sum(rest)  # never below the answer: a smaller first radix only makes the rest longer
