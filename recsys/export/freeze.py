"""Freeze a trained plan for serving: the same logical features over tables stored as a narrower row type."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from recsys.core.errors import CheckpointError
from recsys.core.plan import TablePlan
from recsys.core.specs import RowType, TableSpec


def freeze(plan: TablePlan, tables: Mapping[str, Tensor], row_type: RowType) -> tuple[TablePlan, dict[str, Tensor]]:
    """Turn trained tables into served ones.

    Args:
        plan: the trained plan.
        tables: float32 (num_embeddings, embedding_dim) by table name.
        row_type: how to store rows. A table whose rows are not smaller as INT8 (width 1 or 2, where scale and bias
            weigh more than the values) stays FLOAT32, and the serving plan says so.

    Returns:
        (serving plan, serving tables): FLOAT32 unchanged, FLOAT16 cast, INT8 as uint8 (num_embeddings,
        embedding_dim + 8): values, then float32 scale and bias. Tensor bytes equal the plan's `table_bytes`.

    Raises:
        CheckpointError: a table is absent, of another shape or type, or holds NaN or infinity.
    """
    specs, served = [], {}
    for spec in plan.tables:
        _check_table(spec, tables)
        frozen = replace(spec, row_type=_smaller(row_type, spec.embedding_dim))
        specs.append(frozen)
        served[spec.name] = _store(tables[spec.name].detach().cpu().contiguous(), frozen.row_type)
    return TablePlan(tables=tuple(specs), features=plan.features), served


def _smaller(row_type: RowType, embedding_dim: int) -> RowType:
    fits = row_type.row_bytes(embedding_dim) < RowType.FLOAT32.row_bytes(embedding_dim)
    return row_type if fits else RowType.FLOAT32


def _store(table: Tensor, row_type: RowType) -> Tensor:
    if row_type is RowType.INT8:
        packed: Tensor = torch.ops.quantized.embedding_bag_byte_prepack(table)
        return packed
    return table.half() if row_type is RowType.FLOAT16 else table


def _check_table(spec: TableSpec, tables: Mapping[str, Tensor]) -> None:
    if spec.name not in tables:
        raise CheckpointError(
            f"table {spec.name!r} of the plan is not among the weights ({sorted(tables)}). "
            "The checkpoint belongs to another plan: export with the plan it was trained with."
        )
    table = tables[spec.name]
    shape = (spec.num_embeddings, spec.embedding_dim)
    if tuple(table.shape) != shape or table.dtype != torch.float32:
        raise CheckpointError(
            f"table {spec.name!r} is {table.dtype} {tuple(table.shape)}, but the plan says torch.float32 {shape}. "
            "The checkpoint belongs to another plan: export with the plan it was trained with."
        )
    if not bool(torch.isfinite(table).all()):
        raise CheckpointError(
            f"table {spec.name!r} holds NaN or infinity: training diverged. Train again with a smaller learning rate."
        )
