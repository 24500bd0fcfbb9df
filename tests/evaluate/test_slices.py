"""Slices partition the rows, deterministically, whatever the column holds."""

import datetime
import itertools
import math

import polars as pl
import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.evaluate import EvaluateConfig
from recsys.evaluate.slices import check_sliceable, fit_slicing


def sliced(values: pl.Series, **options: int) -> dict[str, list[int]]:
    """Name of each slice, in order, to its row positions; checked to hold every row exactly once."""
    values = values.rename("column")
    check_sliceable(values.to_frame().schema, "column")
    slicing = fit_slicing([values], EvaluateConfig(**options))  # type: ignore[arg-type]
    slices: dict[str, list[int]] = {name: [] for name in slicing.names}
    for row, code in enumerate(slicing.codes(values).tolist()):
        slices[slicing.names[code]].append(row)
    assert sorted(row for rows in slices.values() for row in rows) == list(range(len(values)))
    return {name: rows for name, rows in slices.items() if rows}


def test_categories_by_frequency_then_other_then_missing() -> None:
    got = sliced(pl.Series(["b", "a", "b", None, "c", "d", "a", "b"]), max_slice_values=2)
    assert got == {"b": [0, 2, 7], "a": [1, 6], "(other)": [4, 5], "(missing)": [3]}
    assert list(got) == ["b", "a", "(other)", "(missing)"]


def test_equal_frequencies_are_ordered_by_value_not_by_chance() -> None:
    assert list(sliced(pl.Series(["z", "y", "x", "w"]), max_slice_values=3)) == ["w", "x", "y", "(other)"]


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["a", "b"]), pl.String])
def test_text_types_are_alike(dtype: pl.DataType) -> None:
    assert sliced(pl.Series(["a", "b", "b", None]).cast(dtype)) == {"b": [1, 2], "a": [0], "(missing)": [3]}


def test_blank_and_boolean_values_have_visible_names() -> None:
    assert list(sliced(pl.Series(["", " ", "", "x", "x", "x"]))) == ["x", "''", "' '"]
    assert list(sliced(pl.Series([True, False, True]))) == ["true", "false"]


def test_few_integers_are_values_in_numeric_order_and_many_are_buckets() -> None:
    assert list(sliced(pl.Series([10, 9, -2, 10, 9, 10]))) == ["-2", "9", "10"]
    assert list(sliced(pl.Series(range(1000)), num_buckets=4)) == ["0 … 249", "250 … 499", "500 … 749", "750 … 999"]


def test_floats_are_buckets_of_equal_mass_and_ties_stay_together() -> None:
    got = sliced(pl.Series([0.0] * 70 + [float(i) for i in range(1, 31)] + [math.nan, None]), num_buckets=5)
    assert got["0"] == list(range(70))
    assert got["(missing)"] == [100, 101]
    assert list(got) == ["0", "1 … 10", "11 … 30", "(missing)"]
    assert sliced(pl.Series([1.5, 1.5, 1.5])) == {"1.5": [0, 1, 2]}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("num_buckets", [2, 5, 9])
def test_any_number_of_rows_in_any_number_of_buckets(count: int, num_buckets: int) -> None:
    values = torch.rand(count, generator=torch.Generator().manual_seed(count)).double()
    slices = sliced(pl.Series(values.numpy()), num_buckets=num_buckets)
    assert len(slices) == min(count, num_buckets)
    ranges = [(values[rows].min().item(), values[rows].max().item()) for rows in slices.values()]
    assert all(one[1] < other[0] for one, other in itertools.pairwise(ranges)), "buckets must not overlap"


def test_times_are_sliced_by_day_in_order() -> None:
    days = [datetime.datetime(2026, 3, day, 5, tzinfo=datetime.UTC) for day in (2, 1, 2, 3)]
    assert sliced(pl.Series(days)) == {"2026-03-01": [1], "2026-03-02": [0, 2], "2026-03-03": [3]}


@pytest.mark.parametrize("dtype", [pl.String, pl.Float32, pl.Int64, pl.Date, pl.Null])
def test_empty_and_all_missing_columns(dtype: pl.DataType) -> None:
    assert sliced(pl.Series([], dtype=dtype)) == {}
    assert sliced(pl.Series([None, None], dtype=dtype)) == {"(missing)": [0, 1]}


def test_unusable_columns_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"no column 'country'.*\['column'\]"):
        check_sliceable(pl.Schema({"column": pl.Int64}), "country")
    with pytest.raises(ConfigError, match="'column' is List"):
        sliced(pl.Series([[1, 2], [3]]))
