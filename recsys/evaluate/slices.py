"""Splitting rows by a column: frequent values of a category, quantile buckets of a number, days of a time."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import pad

from recsys.core.errors import ConfigError, DataError
from recsys.evaluate.config import EvaluateConfig

MISSING = "(missing)"
OTHER = "(other)"
MAX_DISTINCT = 1 << 25
"""Different values of one column that are held to split it: 0.5 GB of numbers."""
MAX_SECONDS = 100_000_000_000  # the year 5138; a time of today in milliseconds is 1.7e12


@dataclass(frozen=True, kw_only=True)
class Slicing:
    """How the rows of a column are split: decided from all its values, applied to any part of its rows."""

    names: tuple[str, ...]
    """Of the slices, "(missing)" last."""
    known: pl.Series
    """Where values are slices, the value of each; else the greatest number of each bucket, float64, ascending."""
    buckets: bool
    by_day: bool

    def codes(self, values: pl.Series) -> Tensor:
        """Slice of each row of a part, int64 (N,) in [0, len(names))."""
        values = _comparable(values, by_day=self.by_day)
        if self.buckets:
            numbers = values.cast(pl.Float64).fill_nan(None)
            present = torch.from_numpy(numbers.is_not_null().to_numpy(writable=True))
            ends = torch.from_numpy(self.known.to_numpy(writable=True))
            found = torch.searchsorted(ends, torch.from_numpy(numbers.fill_null(0).to_numpy(writable=True)))
            return torch.where(present, found, ends.numel())
        table = pl.DataFrame({"value": self.known, "code": pl.arange(len(self.known), eager=True, dtype=pl.Int64)})
        coded = values.rename("value").to_frame().join(table, on="value", how="left", maintain_order="left")["code"]
        coded = coded.fill_null(len(self.known)).set(values.is_null(), len(self.known) + 1)
        return torch.from_numpy(coded.to_numpy(writable=True))


def check_sliceable(schema: pl.Schema, column: str, *, by_day: bool = False) -> None:
    """Refuse a column that cannot be split.

    Raises:
        ConfigError: it is absent, has no single value per row, or no seconds where days are asked for.
    """
    key = "day_slices" if by_day else "slices"
    if column not in schema:
        raise ConfigError(f"evaluate.{key}: no column {column!r} in the predictions, only {schema.names()}. Name one.")
    dtype = schema[column]
    if by_day and not dtype.is_integer():
        raise ConfigError(
            f"evaluate.day_slices: column {column!r} is {dtype}: whole seconds since 1970 are needed. Name a date or "
            "time in evaluate.slices instead."
        )
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        raise ConfigError(
            f"evaluate.slices: column {column!r} is {dtype}, which has no single value per row to slice by. "
            "Derive a column with one value per row, e.g. the length of the list."
        )


def fit_slicing(parts: Iterable[pl.Series], config: EvaluateConfig, *, by_day: bool = False) -> Slicing:
    """Decide how to split the rows of a column.

    Args:
        parts: one or more, all its values in any order; only different ones are held at once.
        config: how many slices.
        by_day: values are whole seconds since 1970, and each day (UTC) is a slice.
    Raises:
        DataError: too many different values to hold, or impossible times.
    """
    counts = _counts(parts, by_day=by_day)
    dtype = counts["value"].dtype
    if dtype.is_float() or (dtype.is_integer() and counts.height > config.max_slice_values):
        return _bucketed(counts, config.num_buckets)
    # Ties in frequency by value, so that the same rows always give the same slices.
    present = counts.drop_nulls().sort(["rows", "value"], descending=[True, False])
    known = present["value"].head(config.max_slice_values)
    if dtype.is_integer() or dtype == pl.Date or dtype == pl.Enum:
        known = known.sort()
    names = [str(value) if str(value).strip() else repr(value) for value in known.to_list()]
    return Slicing(names=(*names, OTHER, MISSING), known=known, buckets=False, by_day=by_day)


def _counts(parts: Iterable[pl.Series], *, by_day: bool) -> pl.DataFrame:
    """Different `value`s with their `rows`."""
    held: list[pl.DataFrame] = []
    for part in parts:
        values = _comparable(part, by_day=by_day).rename("value").to_frame()
        held.append(values.group_by("value").agg(pl.len().cast(pl.Int64).alias("rows")))
        if len(held) > 1 and held[-1].height * len(held) >= held[0].height:
            held = [_added_up(held)]
        if held[0].height > MAX_DISTINCT:
            raise DataError(
                f"column {part.name!r} has more than {MAX_DISTINCT:,} different values, more than are held to split "
                "its rows. Slice by a coarser column."
            )
    return _added_up(held)


def _added_up(counts: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(counts).group_by("value").agg(pl.col("rows").sum())


def _comparable(values: pl.Series, *, by_day: bool) -> pl.Series:
    """Values such that equal ones belong to one slice."""
    if by_day:
        beyond = int((values.cast(pl.Float64).abs() > MAX_SECONDS).sum())
        if beyond:
            raise DataError(
                f"evaluate.day_slices: {beyond} value(s) of column {values.name!r} are no seconds since 1970 but far "
                "beyond; perhaps milliseconds. Write seconds at ingest."
            )
        return pl.from_epoch(values.cast(pl.Int64), time_unit="s").dt.date()
    if values.dtype in (pl.Date, pl.Datetime):
        return values.dt.date()
    if values.dtype.is_float():
        return values.fill_nan(None)
    return values if values.dtype.is_integer() or values.dtype == pl.Enum else values.cast(pl.String)


def _bucketed(counts: pl.DataFrame, num_buckets: int) -> Slicing:
    """Buckets of about equally many rows, named by the least and greatest value that they really hold."""
    whole = counts["value"].dtype.is_integer()
    present = counts.with_columns(pl.col("value").cast(pl.Float64)).drop_nulls().sort("value")
    values, rows = (torch.from_numpy(present[name].to_numpy(writable=True)) for name in ("value", "rows"))
    before = pad(rows.cumsum(0), (1, 0))[:-1]
    bins = before * num_buckets // max(int(rows.sum()), 1)  # equal values never part
    _, sizes = torch.unique_consecutive(bins, return_counts=True)
    lasts = sizes.cumsum(0) - 1
    ends = zip(values[lasts - sizes + 1].tolist(), values[lasts].tolist(), strict=True)
    form = ",.0f" if whole else ".4g"
    names = [f"{low:{form}} … {high:{form}}" if low != high else f"{low:{form}}" for low, high in ends]
    known = pl.Series("value", values[lasts].numpy(), dtype=pl.Float64)
    return Slicing(names=(*names, MISSING), known=known, buckets=True, by_day=False)
