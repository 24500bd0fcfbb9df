"""Values of physical tables: initial weights that do not depend on how they are sharded."""

import torch
from torch import Tensor
from torch.distributed._shard.sharded_tensor import ShardedTensor

from recsys.core.initial import BLOCK_ROWS, initial_block
from recsys.core.plan import TablePlan
from recsys.core.specs import TableSpec


def initialize_tables(state: dict[str, Tensor | ShardedTensor], plan: TablePlan, *, seed: int) -> None:
    """Fill every table in place: row r of a table depends on the seed, the table's name and r alone.

    Args:
        state: `state_dict()` of the (sharded) model; its tensors share memory with the parameters.
        plan: the model's plan.
        seed: of the run.
    """
    for key, value in state.items():
        table = table_of(key, plan)
        if table is None:
            continue
        for tensor, row, column in local_parts(value):
            _fill(tensor, table, row, column, seed)


def table_of(key: str, plan: TablePlan) -> TableSpec | None:
    """The table that a state-dict key holds, if it holds one."""
    parts = key.split(".")
    if len(parts) < 3 or parts[-1] != "weight" or parts[-3] not in ("embedding_bags", "embeddings"):
        return None
    return next((table for table in plan.tables if table.name == parts[-2]), None)


def local_parts(value: Tensor | ShardedTensor) -> list[tuple[Tensor, int, int]]:
    """(tensor, first row, first column) of what this rank holds of a table, or of one value a row."""
    if not isinstance(value, ShardedTensor):
        return [(value, 0, 0)]
    shards = [(shard.tensor, [*shard.metadata.shard_offsets, 0]) for shard in value.local_shards()]
    return [(tensor, offsets[0], offsets[1]) for tensor, offsets in shards]


def _fill(part: Tensor, table: TableSpec, first_row: int, first_column: int, seed: int) -> None:
    rows, width = part.shape
    for block in range(first_row // BLOCK_ROWS, (first_row + rows - 1) // BLOCK_ROWS + 1 if rows else 0):
        start = block * BLOCK_ROWS
        values = initial_block(table, block, seed)
        low, high = max(start, first_row), min(start + len(values), first_row + rows)
        with torch.no_grad():
            part[low - first_row : high - first_row] = values[
                low - start : high - start, first_column : first_column + width
            ]
