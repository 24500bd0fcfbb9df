"""Splitting rows by a column: frequent values of a category, quantile buckets of a number, days of a time."""

from collections.abc import Iterator

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.evaluate.config import EvaluateConfig
from recsys.metrics import equal_mass_bins

MISSING = "(missing)"
OTHER = "(other)"


def iterate_slices(frame: pl.DataFrame, column: str, config: EvaluateConfig) -> Iterator[tuple[str, Tensor]]:
    """Yield (name of the slice, its row positions int64 (M,)); together the slices hold every row once.

    Categories come by descending frequency, buckets and days ascending; "(other)" and "(missing)" come last.

    Raises:
        ConfigError: there is no such column, or its type cannot be sliced (a list, say).
    """
    if column not in frame.columns:
        raise ConfigError(f"evaluate.slices: no column {column!r} in the predictions, only {frame.columns}. Name one.")
    names, codes = _code(frame[column], config)
    order = torch.argsort(codes, stable=True)
    sizes = torch.bincount(codes, minlength=len(names)).tolist()
    for name, rows in zip(names, torch.split(order, sizes), strict=True):
        if rows.numel():
            yield name, rows


def _code(values: pl.Series, config: EvaluateConfig) -> tuple[list[str], Tensor]:
    """(Names of slices, slice of each row int64 (N,))."""
    dtype = values.dtype
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        raise ConfigError(
            f"evaluate.slices: column {values.name!r} is {dtype}, which has no single value per row to slice by. "
            "Derive a column with one value per row, e.g. the length of the list."
        )
    if dtype.is_float() or (dtype.is_integer() and values.n_unique() > config.max_slice_values):
        return _code_buckets(values.cast(pl.Float64).fill_nan(None), values, config.num_buckets)
    if dtype in (pl.Date, pl.Datetime):
        return _code_values(values.dt.date(), config.max_slice_values, by_count=False)
    if not dtype.is_integer():
        values = values.cast(pl.String)
    return _code_values(values, config.max_slice_values, by_count=not dtype.is_integer())


def _code_values(values: pl.Series, max_values: int, *, by_count: bool) -> tuple[list[str], Tensor]:
    counts = values.drop_nulls().rename("value").to_frame().group_by("value").len()
    # Ties in frequency by value, so that the same rows always give the same slices.
    frequent = counts.sort(["len", "value"], descending=[True, False])["value"].to_list()[:max_values]
    if not by_count:
        frequent.sort()
    known = pl.Series("value", frequent, dtype=values.dtype)
    codes = pl.DataFrame({"value": known, "code": pl.arange(len(frequent), eager=True, dtype=pl.Int64)})
    coded = values.rename("value").to_frame().join(codes, on="value", how="left", maintain_order="left")["code"]
    coded = coded.fill_null(len(frequent)).set(values.is_null(), len(frequent) + 1)
    names = [str(value) if str(value).strip() else repr(value) for value in frequent]
    return [*names, OTHER, MISSING], torch.from_numpy(coded.to_numpy(writable=True))


def _code_buckets(numbers: pl.Series, values: pl.Series, num_buckets: int) -> tuple[list[str], Tensor]:
    """Buckets are named by the least and greatest value that they really hold."""
    ascending, order = torch.from_numpy(numbers.drop_nulls().to_numpy(writable=True)).sort()
    bins, sizes = torch.unique_consecutive(equal_mass_bins(ascending, num_buckets), return_counts=True)
    codes = torch.repeat_interleave(torch.arange(bins.numel()), sizes)
    coded = torch.full((len(numbers),), bins.numel())
    present = torch.from_numpy(numbers.is_not_null().to_numpy(writable=True)).nonzero().flatten()
    coded[present[order]] = codes
    lasts = sizes.cumsum(0) - 1
    ends = zip(ascending[lasts - sizes + 1].tolist(), ascending[lasts].tolist(), strict=True)
    form = ",.0f" if values.dtype.is_integer() else ".4g"
    names = [f"{low:{form}} … {high:{form}}" if low != high else f"{low:{form}}" for low, high in ends]
    return [*names, MISSING], coded
