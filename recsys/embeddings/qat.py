"""`qat`: rows are rounded in every forward pass as they will be when served (quantization-aware training).

The grid is one a table: codes times a step around zero, as in the INT8 rows of arXiv:2311.15578, whose step is 0.01.
The gradient passes the rounding (LSQ, arXiv:1902.08153), and the step is learned too where `learn_step` says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Combiner
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.row_storage import pack_rows
from recsys.core.specs import FeatureSpec, Init, RowType
from recsys.embeddings.combiners import Only
from recsys.embeddings.method import MethodConfig, full_table
from recsys.ops.fake_quantize import fake_quantize, grid_codes, learned_step


class FakeQuantize(Combiner):
    """The row, rounded to the feature's grid. Not linear: multi-valued features round every row, then pool."""

    linear: bool = False

    def __init__(self, bits: int, dim: int, step: float, learn_step: bool) -> None:
        super().__init__()
        self.bits, self.dim, self.initial = bits, dim, step
        log_ratio = torch.zeros(1)
        if learn_step:
            self.log_ratio = nn.Parameter(log_ratio)
        else:
            self.register_buffer("log_ratio", log_ratio, persistent=False)

    def step(self) -> Tensor:
        """Distance of two codes, float32, shape (1,), exact in float16."""
        return learned_step(self.initial, self.log_ratio, self.dim, self.bits)

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return `rows[0]` on the grid."""
        return fake_quantize(rows[0], self.step(), self.bits)


def pack_grid(table: Tensor, step: Tensor, row_type: RowType) -> Tensor:
    """Store rows on their trained grids.

    Args:
        table: float32, shape (rows, embedding_dim).
        step: float32, exact in float16, shape (rows, 1) or (1,).
        row_type: INT8, INT4 or INT2.
    Returns:
        uint8, shape (rows, row_bytes): what it unpacks to is `fake_quantize(table, step)` up to rounding in float32.
    """
    scale = step.detach().reshape(-1).expand(table.shape[0])
    bias = -float(1 << (row_type.bits - 1)) * scale  # a power of two: exact wherever the scale is
    return pack_rows(grid_codes(table, step.detach(), row_type.bits), scale, bias, row_type)


def check_row_type(row_type: RowType) -> None:
    """Raise ConfigError for types without codes."""
    if row_type.bits > 8:
        raise ConfigError(
            f"row_type={row_type.value}: rows are trained on a grid of codes. Use int8, int4 or int2; embedding=fp16 "
            "stores float16 rows, which need no such training."
        )


def check_step(step: float) -> None:
    """Raise ConfigError for steps beyond those that `learned_step` keeps."""
    if not 2**-14 <= step <= 256:
        raise ConfigError(f"step={step}: must lie in [2**-14, 256], so that float16 can store it.")


@dataclass(frozen=True, kw_only=True)
class QATConfig(MethodConfig):
    """A full table for every feature, trained on the grid that it is served with.

    Rows that would not shrink (of width 1 for instance) are trained and served as float32.
    """

    # Not 1e-4: all rows would round to zero at first, and where only products of rows are read, zeros stay zeros.
    init: Init = field(default_factory=lambda: Init(scale=0.01))
    row_type: RowType = RowType.INT8
    step: float = 0.01  # rounded to float16; where a step is learned, its first value
    learn_step: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_row_type(self.row_type)
        check_step(self.step)

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan one full table per feature; what is served has a fixed size, so a budget only checks it."""
        return TablePlan.merge([self._plan_one(feature) for feature in features])

    def _plan_one(self, feature: FeatureSpec) -> TablePlan:
        plan = full_table(feature, self.init)
        if not self.row_type.saves(feature.embedding_dim):
            return plan
        combiner = Component.of(
            FakeQuantize,
            bits=self.row_type.bits,
            dim=feature.embedding_dim,
            step=self.step,
            learn_step=self.learn_step,
        )
        return TablePlan(tables=plan.tables, features=(replace(plan.features[0], combiner=combiner),))

    def serving_plan(self, plan: TablePlan) -> TablePlan:
        """Rows of codes and nothing to combine: the step is each row's scale."""
        rounded = {name for entry in plan.features if _is_rounded(entry) for name in entry.tables}
        return TablePlan(
            tables=tuple(replace(t, row_type=self.row_type) if t.name in rounded else t for t in plan.tables),
            features=tuple(
                replace(entry, combiner=Component.of(Only)) if _is_rounded(entry) else entry for entry in plan.features
            ),
        )

    def freeze(self, parts: EmbeddingParts) -> EmbeddingParts:
        """Store each row's codes on the trained grid."""
        tables, combiners = dict(parts.tables), dict(parts.combiners)
        for entry in parts.plan.features:
            combiner, (name,) = parts.combiners[entry.feature.name], entry.tables
            if isinstance(combiner, FakeQuantize):
                tables[name] = pack_grid(parts.tables[name], combiner.step(), self.row_type)
                combiners[entry.feature.name] = Only()
        plan = self.serving_plan(parts.plan)
        return EmbeddingParts(plan=plan, tables=tables, remaps=parts.remaps, combiners=combiners)


def _is_rounded(entry: FeaturePlan) -> bool:
    return entry.combiner.target == Component.of(FakeQuantize).target
