"""`alpt`: rows on grids whose steps are learned one a row (Li et al., AAAI 2023, arXiv:2212.05735).

A row x of width d has a step D = D0 * exp(c * s), with s in a table of width 1 that starts at 0: positive whatever is
learned, and c keeps its rate of change small under any optimizer of tables. The gradient of D is LSQ's, divided by
sqrt(d * (2**(bits - 1) - 1)). Unlike the paper's, x stays float32 while it is trained, so rounding is to the nearest
and one pass of a batch gives both gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Combiner, Remap
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, Init, RowType, TableSpec
from recsys.embeddings.combiners import Only
from recsys.embeddings.method import Identity, MethodConfig, full_table
from recsys.embeddings.qat import check_row_type, check_step, pack_grid
from recsys.ops.fake_quantize import fake_quantize, learned_step


class IdentityTwice(Remap):
    """A row of its own for every id, in two tables."""

    def forward(self, ids: Tensor) -> Tensor:
        """Return `ids` as rows of both, int64, shape (2, N)."""
        return torch.stack([ids, ids])


class FakeQuantizeRows(Combiner):
    """A row, rounded to its own grid: look-up 0 is the row (N, d), look-up 1 what its step is made of (N, 1)."""

    linear: bool = False

    def __init__(self, bits: int, dim: int, step: float, step_rate: float) -> None:
        super().__init__()
        self.bits, self.dim, self.initial, self.step_rate = bits, dim, step, step_rate

    def steps(self, learned: Tensor) -> Tensor:
        """Steps of rows, exact in float16: (N, 1) -> float32 (N, 1)."""
        return learned_step(self.initial, learned * self.step_rate, self.dim, self.bits)

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return `rows[0]` on the grids that `rows[1]` makes."""
        return fake_quantize(rows[0], self.steps(rows[1]), self.bits)


@dataclass(frozen=True, kw_only=True)
class ALPTConfig(MethodConfig):
    """A full table and a table of steps for every feature, served as rows with those steps as their scales.

    Rows that would not shrink (of width 1 for instance) are trained and served as float32.
    """

    # Not 1e-4: all rows would round to zero at first, and where only products of rows are read, zeros stay zeros.
    init: Init = field(default_factory=lambda: Init(scale=0.01))
    row_type: RowType = RowType.INT8
    step: float = 0.01  # first value of every step
    step_rate: float = 0.1  # c: how far the logarithm of a step moves where its table's value moves by 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_row_type(self.row_type)
        check_step(self.step)
        if not 0 < self.step_rate <= 1:
            raise ConfigError(f"step_rate={self.step_rate}: must be above 0 and at most 1; steps should change slowly.")

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan two tables per feature; what is served has a fixed size, so a budget only checks it."""
        return TablePlan.merge([self._plan_one(feature) for feature in features])

    def _plan_one(self, feature: FeatureSpec) -> TablePlan:
        full = full_table(feature, self.init)
        if not self.row_type.saves(feature.embedding_dim):
            return full
        (rows,) = full.tables
        zeros = Init(scale=0.0)
        steps = TableSpec(name=f"steps_{feature.name}", num_embeddings=rows.num_embeddings, embedding_dim=1, init=zeros)
        combiner = Component.of(
            FakeQuantizeRows,
            bits=self.row_type.bits,
            dim=feature.embedding_dim,
            step=self.step,
            step_rate=self.step_rate,
        )
        entry = FeaturePlan(
            feature=feature, tables=(rows.name, steps.name), remap=Component.of(IdentityTwice), combiner=combiner
        )
        return TablePlan(tables=(rows, steps), features=(entry,))

    def serving_plan(self, plan: TablePlan) -> TablePlan:
        """Rows of codes, and no table of steps: they are the rows' scales."""
        return TablePlan.merge([self._serving_plan_one(plan.of([entry.feature.name])) for entry in plan.features])

    def _serving_plan_one(self, plan: TablePlan) -> TablePlan:
        (entry,), rows = plan.features, plan.tables[0]
        if not _is_rounded(entry):
            return plan
        served = FeaturePlan(
            feature=entry.feature, tables=(rows.name,), remap=Component.of(Identity), combiner=Component.of(Only)
        )
        return TablePlan(tables=(replace(rows, row_type=self.row_type),), features=(served,))

    def freeze(self, parts: EmbeddingParts) -> EmbeddingParts:
        """Store each row's codes on its trained grid."""
        return EmbeddingParts.merge([self._freeze_one(parts.of([e.feature.name])) for e in parts.plan.features])

    def _freeze_one(self, parts: EmbeddingParts) -> EmbeddingParts:
        (entry,) = parts.plan.features
        combiner = parts.combiners[entry.feature.name]
        if not isinstance(combiner, FakeQuantizeRows):
            return parts
        rows, steps = entry.tables
        packed = pack_grid(parts.tables[rows], combiner.steps(parts.tables[steps]), self.row_type)
        name = entry.feature.name
        return EmbeddingParts(
            plan=self._serving_plan_one(parts.plan),
            tables={rows: packed},
            remaps={name: Identity()},
            combiners={name: Only()},
        )


def _is_rounded(entry: FeaturePlan) -> bool:
    return entry.combiner.target == Component.of(FakeQuantizeRows).target
