"""Keys of groups, such as users: what is told apart, and what is no key."""

import polars as pl


def group_keys(values: pl.Series) -> pl.Series:
    """The keys as integers or text; null where there is none, as for NaN: pooled, they would be one false user."""
    if values.dtype.is_integer():
        return values
    return (values.fill_nan(None) if values.dtype.is_float() else values).cast(pl.String)
