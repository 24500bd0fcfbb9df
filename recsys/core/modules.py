"""The two module contracts of a plan. Both script with ATen operators only: export freezes them as they are."""

import torch
from torch import nn


class Remap(nn.Module):
    """Logical ids to rows of physical tables: int64 tensor operations, no host synchronisation.

    `forward(ids)` takes int64 ids of shape (N,) and returns int64 rows of shape (T, N): row [t, i] is where look-up t
    of id i reads in the feature's t-th table.
    """

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return rows, int64, shape (T, N)."""
        raise NotImplementedError

    def rows_needed(self) -> list[int] | None:
        """Rows that the table of each look-up must have, where this remap knows without asking for an id; else None."""
        return None


class Combiner(nn.Module):
    """The T looked-up rows of a feature to its embedding.

    `forward(ids, rows)` takes the ids (N,) and T tensors (N, width_t), and returns (N, embedding_dim). A combiner with
    `linear = True` must not read `ids`: it is applied after pooling, where rows are (B, width_t).
    """

    linear: bool = True

    def forward(self, ids: torch.Tensor, rows: list[torch.Tensor]) -> torch.Tensor:
        """Return embeddings, float32, shape (N, embedding_dim)."""
        raise NotImplementedError


def is_linear(combiner: nn.Module) -> bool:
    """True if the combiner may be applied after pooling."""
    assert isinstance(combiner, Combiner), f"{type(combiner).__name__} is not a Combiner"
    return combiner.linear
