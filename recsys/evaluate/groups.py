"""Keys of groups, such as users: what is told apart, and what is no key."""

import polars as pl
import torch
from torch import Tensor


def group_keys(values: pl.Series) -> pl.Series:
    """The keys as integers or text; null where there is none, as for NaN: pooled, they would be one false user."""
    if values.dtype.is_integer():
        return values
    return (values.fill_nan(None) if values.dtype.is_float() else values).cast(pl.String)


def group_ranks(values: pl.Series) -> Tensor:
    """The rank of each row's key among the different ones, int64 (N,), from 1; 0 for a row without a key."""
    ranks = group_keys(values).rank("dense").cast(pl.Int64).fill_null(0)
    return torch.from_numpy(ranks.to_numpy(writable=True))
