"""From embeddings of ids to embeddings of rows, without waiting for the device."""

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import JaggedTensor


def one_id_per_row(jagged: JaggedTensor) -> Tensor:
    """The id of each row of a single-valued feature, (B,); any id where the row has none."""
    torch._assert_async((jagged.lengths() <= 1).all(), "a feature planned as single-valued has a row of several ids")
    if jagged.values().numel() == jagged.lengths().numel():
        return jagged.values()
    if jagged.values().numel() == 0:
        return torch.zeros_like(jagged.lengths(), dtype=torch.int64)
    return jagged.values()[jagged.offsets()[:-1].clamp(max=jagged.values().numel() - 1)]


def sum_pool(values: Tensor, lengths: Tensor) -> Tensor:
    """Sum the embeddings of each row's ids.

    Args:
        values: float32, shape (N, D).
        lengths: integer, shape (B,), summing to N; 0 gives zeros.
    Returns:
        float32, shape (B, D).
    """
    places = torch.arange(lengths.numel(), device=lengths.device)
    rows = torch.repeat_interleave(places, lengths, output_size=values.shape[0])  # else it waits for the device to say
    return values.new_zeros(lengths.numel(), values.shape[1]).index_add(0, rows, values)
