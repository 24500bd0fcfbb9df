"""What `qat` and `alpt` share: rows that are trained on the grids of codes that they are served as."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.core.row_storage import pack_rows
from recsys.core.specs import FeatureSpec, Init, RowType
from recsys.embeddings.method import MethodConfig, full_table
from recsys.ops.fake_quantize import grid_codes


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


@dataclass(frozen=True, kw_only=True)
class GridConfig(MethodConfig):
    """A full table for every feature, trained on the grids that it is served with.

    Rows that would not shrink (of width 1 for instance) are trained and served as float32.
    """

    # Not 1e-4: all rows would round to zero at first, and where only products of rows are read, zeros stay zeros.
    init: Init = field(default_factory=lambda: Init(scale=0.01))
    row_type: RowType = RowType.INT8
    step: float = 0.01  # of the grids, rounded to float16; where steps are learned, their first value

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.row_type.bits > 8:
            raise ConfigError(
                f"row_type={self.row_type.value}: rows are trained on a grid of codes. Use int8, int4 or int2; "
                "embedding=fp16 stores float16 rows, which need no such training."
            )
        if not 2**-14 <= self.step <= 256:  # those that `learned_step` keeps
            raise ConfigError(f"step={self.step}: must lie in [2**-14, 256], so that float16 can store it.")

    @abstractmethod
    def rounded(self, full: TablePlan) -> TablePlan:
        """The training plan of one feature whose rows shrink; `full` is that of its float32 table."""

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan every feature by itself; what is served has a fixed size, so a budget only checks it."""
        plans = [(feature.embedding_dim, full_table(feature, self.init)) for feature in features]
        return TablePlan.merge([self.rounded(full) if self.row_type.saves(width) else full for width, full in plans])
