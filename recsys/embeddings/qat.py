"""`qat`: rows are rounded in every forward pass as they will be when served (quantization-aware training).

The grid is one a table: codes times a step around zero, as in the INT8 rows of arXiv:2311.15578, whose step is 0.01.
The gradient passes the rounding (LSQ, arXiv:1902.08153), and the step is learned too where `learn_step` says so.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recsys.core.component import Component
from recsys.core.modules import Combiner
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import TablePlan
from recsys.embeddings.combiners import Only
from recsys.embeddings.grid import GridConfig, pack_grid
from recsys.embeddings.method import builds
from recsys.ops.fake_quantize import fake_quantize, learned_step


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


@dataclass(frozen=True, kw_only=True)
class QATConfig(GridConfig):
    """One grid for all rows of a feature."""

    learn_step: bool = True

    def rounded(self, full: TablePlan) -> TablePlan:
        """The full table behind `FakeQuantize`."""
        (entry,) = full.features
        combiner = Component.of(
            FakeQuantize,
            bits=self.row_type.bits,
            dim=entry.feature.embedding_dim,
            step=self.step,
            learn_step=self.learn_step,
        )
        return TablePlan(tables=full.tables, features=(replace(entry, combiner=combiner),))

    def serving_plan(self, plan: TablePlan) -> TablePlan:
        """Rows of codes and nothing to combine: the step is each row's scale."""
        rounded = {e.feature.name: e.tables[0] for e in plan.features if builds(e.combiner, FakeQuantize)}
        return TablePlan(
            tables=tuple(replace(t, row_type=self.row_type) if t.name in rounded.values() else t for t in plan.tables),
            features=tuple(
                replace(e, combiner=Component.of(Only)) if e.feature.name in rounded else e for e in plan.features
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
