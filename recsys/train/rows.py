"""Rows of sharded tables, read and replaced between steps: for methods that move, merge or prune rows."""

from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._shard.sharded_tensor import ShardedTensor

from recsys.core.specs import TableSpec
from recsys.train.tables import local_parts


def read_rows(weight: Tensor | ShardedTensor, table: TableSpec, rows: Tensor) -> Tensor:
    """Rows of a table, float32 (R, embedding_dim), equal on all ranks; see `TrainingSession.read_rows`."""
    parts = local_parts(weight)
    if not isinstance(weight, ShardedTensor):
        return weight.detach()[rows, : table.embedding_dim].float()
    found = torch.zeros(rows.numel(), table.storage_dim, device=rows.device)
    for part, first_row, first_column in parts:
        here, local = _inside(rows, first_row, part.shape[0])
        found[here, first_column : first_column + part.shape[1]] = part.detach()[local].float()
    if dist.get_world_size() > 1:
        dist.all_reduce(found)
    return found[:, : table.embedding_dim]


def write_rows(weight: Tensor | ShardedTensor, table: TableSpec, rows: Tensor, values: Tensor) -> None:
    """Replace rows of the parts of a table that this rank holds; see `TrainingSession.write_rows`."""
    padded = torch.nn.functional.pad(values, (0, table.storage_dim - table.embedding_dim))
    with torch.no_grad():
        for part, first_row, first_column in local_parts(weight):
            here, local = _inside(rows, first_row, part.shape[0])
            part[local] = padded[here, first_column : first_column + part.shape[1]].to(part.dtype)


def forget_rows(weight: Tensor | ShardedTensor, states: Mapping[str, object], rows: Tensor) -> None:
    """Zero what the optimizer holds about rows: sums of squares, moments; counts of steps stay.

    Args:
        weight: of the table, for where its parts lie.
        states: of the table's parameter: tensors of one row a table row, laid out like `weight`, or scalars.
        rows: int64, shape (R,).
    """
    for state in states.values():
        for (part, first_row, _), (held, _, _) in zip(local_parts(weight), _of_rows(state), strict=False):
            if held.dim() and held.shape[0] == part.shape[0]:
                _, local = _inside(rows, first_row, part.shape[0])
                held[local] = 0


def _of_rows(state: object) -> Iterator[tuple[Tensor, int, int]]:
    if isinstance(state, (Tensor, ShardedTensor)):
        yield from local_parts(state)


def _inside(rows: Tensor, first_row: int, count: int) -> tuple[Tensor, Tensor]:
    """(positions in `rows` of those in [first_row, first_row + count), the same rows counted from `first_row`)."""
    here = ((rows >= first_row) & (rows < first_row + count)).nonzero().squeeze(1)
    return here, rows[here] - first_row
