"""Store the tables that are still float32 as a narrower row type: what an export does beyond a method's freeze."""

import torch
from torch import Tensor

from recsys.core.errors import CheckpointError
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import TablePlan
from recsys.core.row_storage import pack
from recsys.core.specs import RowType, TableSpec


def narrow(parts: EmbeddingParts, row_type: RowType) -> EmbeddingParts:
    """Turn frozen parts into exported ones.

    Args:
        parts: as the method freezes them.
        row_type: of the tables that are still FLOAT32; the others stay as the method stores them. A table whose rows
            would not become smaller (width 1 or 2, where scale and bias weigh more than the values) stays FLOAT32, and
            the plan of the result says so.

    Raises:
        CheckpointError: a table is absent, of another shape or type, or holds NaN or infinity.
    """
    specs, stored = [], {}
    for spec in parts.plan.tables:
        if spec.name not in parts.tables:
            raise CheckpointError(
                f"table {spec.name!r} of the plan is not among the weights ({sorted(parts.tables)}). "
                "The checkpoint belongs to another plan: export with the plan it was trained with."
            )
        table = parts.tables[spec.name].detach().cpu().contiguous()
        check_table(spec, table)
        if spec.row_type is RowType.FLOAT32:
            spec = spec.narrowed(row_type)
            table = pack(table, spec.row_type)
        specs.append(spec)
        stored[spec.name] = table
    plan = TablePlan(tables=tuple(specs), features=parts.plan.features)
    return EmbeddingParts(plan=plan, tables=stored, remaps=parts.remaps, combiners=parts.combiners)


def check_table(spec: TableSpec, table: Tensor) -> None:
    """Refuse a table that is not what the plan says.

    Raises:
        CheckpointError: of another shape or type, or it holds NaN or infinity.
    """
    width = spec.embedding_dim
    if spec.row_type not in (RowType.FLOAT32, RowType.FLOAT16):
        width = spec.row_type.row_bytes(width)
    dtype = {RowType.FLOAT32: torch.float32, RowType.FLOAT16: torch.float16}.get(spec.row_type, torch.uint8)
    shape = (spec.num_embeddings, width)
    if tuple(table.shape) != shape or table.dtype != dtype:
        raise CheckpointError(
            f"table {spec.name!r} is {table.dtype} {tuple(table.shape)}, but the plan says {dtype} {shape}. "
            "The checkpoint belongs to another plan: export with the plan it was trained with."
        )
    if not bool(torch.isfinite(table).all()):
        raise CheckpointError(
            f"table {spec.name!r} holds NaN or infinity: training diverged. Train again with a smaller learning rate."
        )
