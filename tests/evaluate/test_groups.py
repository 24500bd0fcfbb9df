"""Which rows have a group, and which groups are told apart."""

import polars as pl
import pytest

from recsys.evaluate.compare_rows import group_ids
from recsys.evaluate.groups import group_keys


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        (pl.Series([1, None, 1]), [1, None, 1]),
        (pl.Series([float("nan"), 2.5, None]), [None, "2.5", None]),
        (pl.Series(["a", None, ""]), ["a", None, ""]),
    ],
)
def test_no_number_is_no_group(values: pl.Series, keys: list[object]) -> None:
    assert group_keys(values).to_list() == keys


def test_rows_without_a_group_stay_apart() -> None:
    frame = pl.DataFrame({"user": [float("nan"), float("nan"), 1.0, 1.0, None]})
    assert len(set(group_ids(frame, "user").tolist())) == 4
