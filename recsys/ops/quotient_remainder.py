"""Exact integer division of ids into complementary rows."""

import torch
from torch import Tensor


def quotient_remainder(ids: Tensor, num_remainders: int) -> tuple[Tensor, Tensor]:
    """Split each id into one row of a quotient table and one of a remainder table.

    Args:
        ids: int64, any shape, each in [0, num_embeddings).
        num_remainders: rows of the remainder table, >= 1.

    Returns:
        (quotient, remainder): int64, shape of `ids`; distinct ids give distinct pairs.

    Source: Shi et al., KDD 2020, arXiv:1909.02107.
    """
    # Not `(ids / n).long()`: that passes through float32 and misses rows above 2**24.
    quotient = torch.div(ids, num_remainders, rounding_mode="floor")
    return quotient, ids - quotient * num_remainders
