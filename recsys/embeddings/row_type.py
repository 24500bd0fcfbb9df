"""`fp16`, `int8`, `int4`, `int2`: full tables in training, rows of fewer bits in serving (rounded after training)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from recsys.core.errors import ConfigError
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import TablePlan
from recsys.core.row_storage import pack_tables
from recsys.core.specs import FeatureSpec, RowType, TableSpec
from recsys.embeddings.method import MethodConfig, full_table


@dataclass(frozen=True, kw_only=True)
class RowTypeConfig(MethodConfig):
    """A table of its own for every feature, served as rows of `row_type`; those that would not shrink stay float32."""

    row_type: RowType

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.row_type is RowType.FLOAT32:
            raise ConfigError("row_type=float32: this would store what is trained. Use embedding=full for that.")

    @property
    def label(self) -> str:
        """That of the row type."""
        return "fp16" if self.row_type is RowType.FLOAT16 else self.row_type.value

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan one full table per feature; what is served has a fixed size, so a budget only checks it."""
        return TablePlan.merge([full_table(feature, self.init) for feature in features])

    def serving_plan(self, plan: TablePlan) -> TablePlan:
        """Tables of `row_type`, but for those of `full_below` and those that would not shrink."""
        return TablePlan(tables=tuple(self._served(table) for table in plan.tables), features=plan.features)

    def freeze(self, parts: EmbeddingParts) -> EmbeddingParts:
        """Round every row to the nearest values of `row_type` between the row's extremes."""
        plan = self.serving_plan(parts.plan)
        return replace(parts, plan=plan, tables=pack_tables(parts.tables, plan.tables))

    def _served(self, table: TableSpec) -> TableSpec:
        return table if table.num_embeddings <= self.full_below else table.narrowed(self.row_type)
