"""Sequences of different lengths side by side, with ATen operators only: training and the exported model share it."""

import torch
from torch import Tensor


def padded(values: Tensor, lengths: Tensor) -> Tensor:
    """Lay the embeddings of each row's ids beside those of the others, zeros after the last.

    Args:
        values: (N, D), row after row.
        lengths: int64 (B,), summing to N.
    Returns:
        (B, L, D) of the type of `values`, L the longest row's length, 1 where all are empty.
    """
    longest = max(int(lengths.max()), 1) if lengths.numel() > 0 else 1
    starts = torch.cumsum(lengths, 0) - lengths
    rows = torch.repeat_interleave(torch.arange(lengths.numel(), device=values.device), lengths)
    places = torch.arange(values.size(0), device=values.device) - starts[rows]
    blank = values.new_zeros((lengths.numel() * longest, values.size(1)))
    return blank.index_copy(0, rows * longest + places, values).view(lengths.numel(), longest, values.size(1))
