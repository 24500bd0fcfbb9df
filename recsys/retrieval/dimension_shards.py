"""Node embeddings sharded by dimension: every rank holds D / W columns of all nodes, so that propagation needs no rank.

Two exchanges, both differentiable and both without effect on one rank: looked-up rows to columns before propagation,
and a batch's rows to all columns after it. Gradients of all ranks add up, as those of a sum of losses over ranks do.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from recsys.core.errors import ConfigError


def num_ranks() -> int:
    """Ranks of the process group, or 1."""
    return dist.get_world_size() if dist.is_initialized() else 1


def check_width(embedding_dim: int) -> None:
    """Refuse a width that ranks cannot share.

    Raises:
        ConfigError: it does not divide.
    """
    if embedding_dim % num_ranks():
        raise ConfigError(
            f"retrieval.model.embedding_dim={embedding_dim} on {num_ranks()} ranks: each rank propagates as many "
            "columns. Choose a multiple of the number of ranks."
        )


def refuse_ranks(model: str) -> None:
    """Refuse to shard the columns of a model that mixes them.

    Raises:
        ConfigError: there are several ranks.
    """
    if num_ranks() > 1:
        raise ConfigError(
            f"retrieval/model={model} on {num_ranks()} ranks: its weights mix the columns of an embedding, of which "
            "each rank would hold some. Set train.run_on.num_processes=1, or choose lightgcn, mf, simgcl, xsimgcl or "
            "ultra_gcn."
        )


def row_squares(columns: Tensor) -> Tensor:
    """Squared length of each row, (n, 1), over the columns of all ranks; without gradient.

    Args:
        columns: this rank's (n, D / W) of the same rows as on every rank.
    """
    total = columns.square().sum(1, keepdim=True)
    if num_ranks() > 1:
        dist.all_reduce(total)
    return total


def shares(count: int) -> list[int]:
    """How many of `count` things each rank takes, first ranks first; they differ by one at most."""
    return [part.numel() for part in torch.empty(count).tensor_split(num_ranks())]


def to_columns(rows: Tensor, counts: list[int]) -> Tensor:
    """All columns of this rank's rows to this rank's columns of all rows.

    Args:
        rows: (counts[rank], D), D a multiple of the ranks.
        counts: rows of each rank.

    Returns:
        (sum of counts, D / W), rows in the order of ranks.
    """
    if num_ranks() == 1:
        return rows
    found: Tensor = _ToColumns.apply(rows, counts)  # type: ignore[no-untyped-call]
    return found


def all_columns(columns: Tensor) -> Tensor:
    """This rank's columns (n, D / W) of some rows, the same rows on every rank, to all columns (n, D)."""
    if num_ranks() == 1:
        return columns
    found: Tensor = _AllColumns.apply(columns)  # type: ignore[no-untyped-call]
    return found


class _ToColumns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:  # noqa: ANN401 - torch's own
        ctx.counts = counts
        return _rows_to_columns(rows, counts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch's own
        return _columns_to_rows(gradients[0], ctx.counts), None


class _AllColumns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, columns: Tensor) -> Tensor:  # noqa: ANN401, ARG004 - torch's own
        parts = [torch.empty_like(columns) for _ in range(num_ranks())]
        dist.all_gather(parts, columns.contiguous())
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor]:  # noqa: ANN401, ARG004 - torch's own
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return (total.chunk(num_ranks(), dim=1)[dist.get_rank()],)


def _rows_to_columns(rows: Tensor, counts: list[int]) -> Tensor:
    width = rows.shape[1] // num_ranks()
    sent = torch.cat(rows.split(width, dim=1)).contiguous()
    received = sent.new_empty(sum(counts), width)
    dist.all_to_all_single(received, sent, counts, [rows.shape[0]] * num_ranks())
    return received


def _columns_to_rows(columns: Tensor, counts: list[int]) -> Tensor:
    own = counts[dist.get_rank()]
    received = columns.new_empty(own * num_ranks(), columns.shape[1])
    dist.all_to_all_single(received, columns.contiguous(), [own] * num_ranks(), counts)
    return torch.cat(received.split(own), dim=1)
