"""Rows with faults are left out up to a limit and listed; no row beside them changes."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.core.manifest import Manifest
from recsys.core.schema import CategoricalFeature, KeyType, NumericFeature
from recsys.data.dataset import SPLIT_NAMES, SplitConfig, SplitMethod
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.libfm import LibfmDataset
from recsys.data.readers import ParquetReader
from recsys.data.table import FileKind, TableDataset
from recsys.data.text import TextReader

HEADER = "y,price,user,item\n"
ROWS = [f"{i % 2},{i}.5,{i % 7},i{i % 5}" for i in range(60)]
FAULTY = {
    3: "2,1,1,a",
    10: "1,cheap,1,a",
    11: "1,1,x,a",
    20: "1,1,1",
    21: "1,1,1,a,b",
    22: "",
    30: "1,1e39,1,a",
    31: "1,1,9223372036854775808,a",
    59: "maybe,cheap,x,a",
}
REASONS = {
    4: ("y", "2", "is not a label"),
    11: ("price", "cheap", "is not a number"),
    12: ("user", "x", "no signed 64-bit integer"),
    21: ("", "1,1,1", "3 value.s., expected 4"),
    22: ("", "1,1,1,a,b", "5 value.s., expected 4"),
    23: ("", "", "1 value.s., expected 4"),
    31: ("price", "1e39", "is infinite"),
    32: ("user", "9223372036854775808", "no signed 64-bit integer"),
    60: ("y", "maybe", "is not a label"),
}


def content(faulty: dict[int, str]) -> bytes:
    return (HEADER + "".join(f"{faulty.get(i, row)}\n" for i, row in enumerate(ROWS))).encode()


def table(path: Path, **changes: object) -> TableDataset:
    values: dict[str, object] = {
        "files": (str(path),),
        "label": "y",
        "numeric": (NumericFeature(name="price"),),
        "categorical": (CategoricalFeature(name="user", key_type=KeyType.INTEGER), CategoricalFeature(name="item")),
        "split": SplitConfig(method=SplitMethod.HASH, train=0.6, validation=0.2, test=0.2),
    }
    return TableDataset(**{**values, **changes})  # type: ignore[arg-type]


def options(max_rejected: float, chunk_rows: int = 7) -> IngestOptions:
    return IngestOptions(seed=3, chunk_rows=chunk_rows, max_rejected=max_rejected)


def encoded(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(folder / split / "*.parquet") for split in SPLIT_NAMES]).sort("__row__")


@pytest.mark.parametrize("quoted", [True, False])
def test_faulty_rows_are_listed_and_the_others_kept(tmp_path: Path, quoted: bool) -> None:
    (tmp_path / "raw.csv").write_bytes(content(FAULTY))
    ingest(table(tmp_path / "raw.csv", quoted=quoted), tmp_path / "out", options=options(0.2))
    rejected = pl.read_parquet(tmp_path / "out" / "rejected" / "*.parquet")
    assert rejected.columns == ["file", "row", "column", "value", "reason"]
    assert rejected["file"].unique().to_list() == [str(tmp_path / "raw.csv")]
    assert rejected["row"].to_list() == list(REASONS)
    for row, (column, value, reason) in zip(rejected.to_dicts(), REASONS.values(), strict=True):
        assert (row["column"], row["value"] or "") == (column, value)
        assert pl.Series([row["reason"]]).str.contains(reason).all()
    rows = encoded(tmp_path / "out")["__row__"].to_list()
    assert rows == [i for i in range(60) if i not in FAULTY]
    assert Manifest.read(tmp_path / "out").num_rejected == 9


def test_sound_rows_are_encoded_as_if_the_faulty_ones_had_never_been_there(tmp_path: Path) -> None:
    """But for their positions and, with them, what depends on position: the split by hash of it is given here."""
    split = SplitConfig(method=SplitMethod.GIVEN)
    for name, faulty in (("with", FAULTY), ("without", {})):
        rows = [faulty.get(i, row) for i, row in enumerate(ROWS) if name == "with" or i not in FAULTY]
        (tmp_path / f"{name}.csv").write_text(HEADER + "\n".join(rows) + "\n")
        source = table(tmp_path / f"{name}.csv", files=(), train=(str(tmp_path / f"{name}.csv"),), split=split)
        ingest(source, tmp_path / name, options=options(0.2))
    first, second = (pl.read_parquet(tmp_path / n / "train" / "*.parquet").drop("__row__") for n in ("with", "without"))
    assert first.drop("price").equals(second.drop("price"))
    assert first["price"].to_list() == pytest.approx(second["price"].to_list(), abs=1e-6)


@pytest.mark.parametrize("method", [SplitMethod.SHUFFLE, SplitMethod.ORDER, SplitMethod.TIME])
def test_every_split_method_goes_on_without_them(tmp_path: Path, method: SplitMethod) -> None:
    frame = pl.DataFrame(
        {"y": [i % 2 for i in range(60)], "price": ["x" if i % 10 == 4 else str(i) for i in range(60)]}
    )
    frame = frame.with_columns(
        user=pl.lit(1), item=pl.lit("a"), t=pl.Series([None if i == 7 else i for i in range(60)])
    )
    frame.write_parquet(tmp_path / "raw.parquet")
    column = "t" if method is SplitMethod.TIME else ""
    rule = SplitConfig(method=method, train=0.6, validation=0.2, test=0.2, column=column)
    ingest(table(tmp_path / "raw.parquet", kind=FileKind.PARQUET, split=rule), tmp_path / "out", options=options(0.2))
    left_out = {i for i in range(60) if i % 10 == 4} | ({7} if column else set())
    assert encoded(tmp_path / "out")["__row__"].to_list() == [i for i in range(60) if i not in left_out]


def test_too_many_are_refused_with_what_they_are_like(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_bytes(content(FAULTY))
    message = (
        r"(?s)of 60 rows have faults so far, more than ingest.max_rejected=0.1 allows: .*raw.csv, row \d+.*"
        r"out/rejected lists them"
    )
    with pytest.raises(DataError, match=message):
        ingest(table(tmp_path / "raw.csv"), tmp_path / "out", options=options(0.1))
    assert pl.read_parquet(tmp_path / "out" / "rejected" / "*.parquet").height == 8  # those of the chunk too


def test_nothing_is_left_out_by_default(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_bytes(content({30: "1,cheap,1,a"}))
    with pytest.raises(DataError, match=r"raw.csv, row 31 .*column 'price': 'cheap' is not a number"):
        ingest(table(tmp_path / "raw.csv"), tmp_path / "out", options=IngestOptions())
    (tmp_path / "good.csv").write_bytes(content({}))
    ingest(table(tmp_path / "good.csv"), tmp_path / "good", options=options(0.5))
    assert not (tmp_path / "good" / "rejected").exists()
    with pytest.raises(ConfigError, match=r"ingest.max_rejected=1.5: must be"):
        options(1.5)


def test_lines_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_bytes(content({}).replace(b"i3\n", b"i\xff3\n", 2))
    ingest(table(tmp_path / "raw.csv"), tmp_path / "out", options=options(0.1))
    rejected = pl.read_parquet(tmp_path / "out" / "rejected" / "*.parquet")
    assert rejected["row"].to_list() == [4, 9]
    assert rejected["reason"][0].startswith("byte 0xff is not UTF-8")


STRAY = {3: '1,1,1,"a', 11: '1,1,1,a"b', 12: '1,"1"2,1,a', 40: '"1,1,1,a"", b', 59: '1,1,1,"a'}


@pytest.mark.parametrize(("block_bytes", "max_row_bytes"), [(1 << 24, 1 << 26), (64, 1 << 26), (64, 200)])
@pytest.mark.parametrize("faulty", [STRAY, {3: STRAY[3]}, {30: STRAY[11]}, FAULTY | STRAY])
def test_a_misplaced_quote_takes_no_line_but_its_own(
    tmp_path: Path, faulty: dict[int, str], block_bytes: int, max_row_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the pieces that the file is read in."""
    monkeypatch.setattr("recsys.data.compression.READ_BYTES", min(block_bytes, 50))
    monkeypatch.setattr("recsys.data.blocks.BLOCK_BYTES", block_bytes)
    monkeypatch.setattr("recsys.data.blocks.MAX_ROW_BYTES", max_row_bytes)
    (tmp_path / "raw.csv").write_bytes(content(faulty))
    ingest(table(tmp_path / "raw.csv"), tmp_path / "out", options=options(0.5))
    rejected = pl.read_parquet(tmp_path / "out" / "rejected" / "*.parquet")
    assert (rejected["row"] - 1).to_list() == sorted(faulty)
    told = rejected.filter(pl.col("value").str.contains('"'))
    assert told["value"].to_list() == [faulty[row - 1] for row in told["row"]]
    assert told["column"].unique().to_list() == [""] and told["reason"].str.starts_with("a double quote opens").all()
    assert encoded(tmp_path / "out")["__row__"].to_list() == [i for i in range(60) if i not in faulty]
    with pytest.raises(DataError, match=r"raw.csv, (row|line) \d+"):
        ingest(table(tmp_path / "raw.csv"), tmp_path / "strict", options=options(0))


LINES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "libfm": ("1 1:1\n" * 9 + "0 2:1\n" * 9 + "1 x:1\n0 3:1\n", lambda path: LibfmDataset(
        train=str(path), validation=str(path), test=str(path), fields=("user",)
    )),
    "jsonl": ('{"y": 1, "user": 1}\n' * 9 + '{"y": false, "user": 2}\n' * 9 + '{"y": 1,\n{"y": 0, "user": 3}\n',
        lambda path: TableDataset(
            train=(str(path),), validation=(f"{path}1",), test=(f"{path}2",), label="y", kind=FileKind.JSONL,
            categorical=(CategoricalFeature(name="user", key_type=KeyType.INTEGER),),
            split=SplitConfig(method=SplitMethod.GIVEN),
        )),
}  # fmt: skip


@pytest.mark.parametrize("case", LINES)
def test_damaged_lines_of_other_forms(tmp_path: Path, case: str) -> None:
    text, build = LINES[case]
    for name in ("raw", "raw1", "raw2"):
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=r"raw, line 19: .*"):
        ingest(build(tmp_path / "raw"), tmp_path / "out", options=options(0))  # type: ignore[arg-type]
    ingest(build(tmp_path / "raw"), tmp_path / "out", options=options(0.1))  # type: ignore[arg-type]
    rejected = pl.read_parquet(tmp_path / "out" / "rejected" / "*.parquet")
    assert rejected["row"].to_list() == [19] * 3 and rejected["column"].to_list() == [""] * 3
    assert encoded(tmp_path / "out").height == 57


@pytest.mark.parametrize("first_row", [0, 1, 6, 7, 30, 59, 60])
def test_readers_begin_where_they_are_told(tmp_path: Path, first_row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.data.blocks.BLOCK_BYTES", 64)
    monkeypatch.setattr("recsys.data.compression.READ_BYTES", 50)
    (tmp_path / "raw.csv").write_bytes(content({}))
    whole = pl.concat(TextReader().frames(tmp_path / "raw.csv", 7))
    whole.write_parquet(tmp_path / "raw.parquet", row_group_size=10)
    for reader, name in (
        (TextReader(), "raw.csv"),
        (TextReader(quoted=False), "raw.csv"),
        (ParquetReader(), "raw.parquet"),
    ):
        frames = [whole.head(0), *reader.frames(tmp_path / name, 7, first_row=first_row)]
        assert pl.concat(frames).equals(whole.slice(first_row))
        assert all(frame.height <= 7 for frame in frames)


def test_a_share_that_floating_point_rounds_down(tmp_path: Path) -> None:
    text = HEADER + "".join(f"{FAULTY[3] if i < 29 else ROWS[i % 60]}\n" for i in range(100))
    (tmp_path / "raw.csv").write_text(text)
    assert ingest(table(tmp_path / "raw.csv"), tmp_path / "out", options=options(0.29)).num_rejected == 29
    with pytest.raises(DataError, match=r"remove or relabel such rows\. .*rejected lists them"):
        ingest(table(tmp_path / "raw.csv"), tmp_path / "less", options=options(0.28))
