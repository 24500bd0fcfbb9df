"""`predict` joins the side tables that ingest joined, to rows that lack their columns."""

import logging
from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import DataError, StageError
from tests.data.test_weights import write
from tests.pipelines.world import MODEL, STAGES, do

ROWS = 600
ITEMS = pl.DataFrame({"item": [f"i{i}" for i in range(20)], "brand": [f"b{i % 4}" for i in range(20)]})
BRANDS = pl.DataFrame({"brand": [f"b{i}" for i in range(4)], "price": [1.0, 20.0, 3.0, 44.0]})
COLUMNS = (
    "dataset=csv",
    "dataset.label=y",
    "dataset.numeric=[{name: price}]",
    "dataset.categorical=[{name: user, key_type: integer}, {name: item}]",
)


def raw() -> pl.DataFrame:
    rows = range(ROWS)
    found = {"y": [int((i * i + i // 3) % 7 < 3) for i in rows], "item": [f"i{i * 3 % 20}" for i in rows]}
    return pl.DataFrame(found | {"user": [i % 13 for i in rows]})


def overrides(folder: Path) -> tuple[str, ...]:
    """`brand` is a key alone: no feature, but the way to the price."""
    sides = (
        f"{{files: [{folder / 'items.parquet'}], key: item, columns: [brand]}}",
        f"{{files: [{folder / 'brands.csv'}], key: brand, columns: [price]}}",
    )
    return (*MODEL, *COLUMNS, f"dataset.files=[{folder / 'rows.csv'}]", f"dataset.side=[{', '.join(sides)}]")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("side")
    raw().write_csv(folder / "rows.csv")
    ITEMS.write_parquet(folder / "items.parquet")
    BRANDS.write_csv(folder / "brands.csv")
    for stage in STAGES:
        do(stage, folder, *overrides(folder))
    return folder


def scores(runs: Path, source: Path) -> pl.DataFrame:
    target = source.with_name(f"scores-of-{source.name}.parquet")
    do("predict", runs, *overrides(runs), f"predict.input={source}", f"predict.output={target}", "overwrite=true")
    return pl.read_parquet(target)


def check(runs: Path, found: pl.DataFrame) -> None:
    known = pl.read_parquet(runs / "small" / "evaluate" / "predictions.parquet")
    both = known.join(found, on="__row__", suffix="_new")
    assert both.height == known.height > 50
    assert both["logit"].to_list() == pytest.approx(both["logit_new"].to_list(), abs=1e-5)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_rows_without_the_columns_are_joined(ending: str, runs: Path, tmp_path: Path) -> None:
    check(runs, scores(runs, write(raw().drop("y"), tmp_path / f"new.{ending}")))


def test_rows_that_have_the_columns_are_taken_as_they_are(runs: Path, tmp_path: Path) -> None:
    whole = raw().join(ITEMS, on="item").join(BRANDS, on="brand").drop("y", "brand")
    for name in ("new.csv", "new.jsonl"):
        write(whole, tmp_path / name)
        (runs / "brands.csv").rename(runs / "elsewhere.csv")  # nobody reads it
        try:
            found = scores(runs, tmp_path / name)
        finally:
            (runs / "elsewhere.csv").rename(runs / "brands.csv")
        check(runs, found)


def test_a_side_table_that_is_gone_is_named(runs: Path, tmp_path: Path) -> None:
    raw().write_csv(tmp_path / "new.csv")
    (runs / "brands.csv").rename(runs / "elsewhere.csv")
    try:
        with pytest.raises(DataError, match=r"brands.csv: no such file .dataset.side"):
            scores(runs, tmp_path / "new.csv")
    finally:
        (runs / "elsewhere.csv").rename(runs / "brands.csv")


def test_unknown_keys_are_counted(runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = raw().with_columns(item=pl.when(pl.int_range(ROWS) < 7).then(pl.lit("new")).otherwise("item"))
    frame.write_csv(tmp_path / "new.csv")
    with caplog.at_level(logging.WARNING):
        found = scores(runs, tmp_path / "new.csv")
    assert found.height == ROWS
    assert "7 of 600 rows have a 'item' that no side table knows" in caplog.text


def test_a_changed_side_table_makes_other_scores(runs: Path, tmp_path: Path) -> None:
    raw().write_csv(tmp_path / "new.csv")
    target = tmp_path / "scores.parquet"
    asked = (*overrides(runs), f"predict.input={tmp_path / 'new.csv'}", f"predict.output={target}")
    do("predict", runs, *asked)
    before = pl.read_parquet(target)
    BRANDS.with_columns(pl.col("price") * 3).write_csv(runs / "brands.csv")
    try:
        with pytest.raises(StageError, match=r"other scores .of another joined files"):
            do("predict", runs, *asked)
        do("predict", runs, *asked, "overwrite=true")
    finally:
        BRANDS.write_csv(runs / "brands.csv")
    assert not before["logit"].equals(pl.read_parquet(target)["logit"])
