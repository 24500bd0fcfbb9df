"""Bad input, by table: each is one named error that says what, where, why and how to fix it."""

import gzip
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import zstandard

from recsys.core.errors import ConfigError, DataError
from recsys.core.schema import CategoricalFeature, KeyType, NumericFeature, Schema
from recsys.data.criteo import CriteoDataset
from recsys.data.dataset import SplitConfig, SplitMethod
from recsys.data.fingerprint import file_fingerprint
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.libfm import LibfmDataset
from recsys.data.readers import reader_for
from recsys.data.table import FileKind, TableDataset
from recsys.data.text import TextReader

OPTIONS = IngestOptions(chunk_rows=8)
HEADER = "y,price,user,item,tags\n"
GOOD = [f"{i % 2},{i}.5,{i},item{i % 3},a|{i % 4}\n" for i in range(40)]


def table(path: Path, **changes: object) -> TableDataset:
    values: dict[str, object] = {
        "files": (str(path),),
        "label": "y",
        "numeric": (NumericFeature(name="price"),),
        "categorical": (
            CategoricalFeature(name="user", key_type=KeyType.INTEGER),
            CategoricalFeature(name="item"),
            CategoricalFeature(name="tags", multi_valued=True),
        ),
    }
    return TableDataset(**{**values, **changes})  # type: ignore[arg-type]


def with_row(row: str, at: int = 20) -> bytes:
    return (HEADER + "".join([*GOOD[:at], row + "\n", *GOOD[at:]])).encode()


CSV_CASES: dict[str, tuple[bytes, str]] = {
    "missing column": (
        with_row("1,2,3,x,a").replace(b"price", b"prise"),
        r"raw.csv: column\(s\) \['price'\] of the schema are missing; the file has \['y', 'prise'.*Correct the names",
    ),
    "text in a number": (
        with_row("1,cheap,3,x,a"),
        r"raw.csv, row 21 .*column 'price': 'cheap' is not a number. Correct",
    ),
    "infinity": (with_row("1,inf,3,x,a"), r"row 21 .*column 'price': 'inf' is infinite.*Clip it"),
    "infinite as float32": (with_row("1,-1e39,3,x,a"), r"row 21 .*column 'price': '-1e39' is infinite \(as float32\)"),
    "text in an integer key": (with_row("1,2,bob,x,a"), r"row 21 .*column 'user': 'bob' is no signed 64-bit integer"),
    "integer key too large": (
        with_row("1,2,9223372036854775808,x,a"),
        r"column 'user': '9223372036854775808'.*key_type STRING",
    ),
    "decimal integer key": (with_row("1,2,1.0,x,a"), r"column 'user': '1.0' is no signed 64-bit integer"),
    "label 2": (with_row("2,2,3,x,a"), r"row 21 .*column 'y': '2' is not a label. Labels must be 0 or 1"),
    "label -1": (with_row("-1,2,3,x,a"), r"row 21 .*column 'y': '-1' is not a label"),
    "no label": (with_row(",2,3,x,a"), r"row 21 .*column 'y': None is not a label"),
    "label in words": (with_row("yes,2,3,x,a"), r"row 21 .*column 'y': 'yes' is not a label"),
    "too few values": (with_row("1,2,3,x"), r"raw.csv, line 22: 4 value\(s\), expected 5 separated by ','"),
    "too many values": (with_row("1,2,3,x,a,b"), r"raw.csv, line 22: 6 value\(s\), expected 5"),
    "blank line": (with_row(""), r"raw.csv, line 22: 1 value\(s\), expected 5"),
    "cut off": (with_row("1,2,3,x,a")[:-9], r"raw.csv, line 42: 4 value\(s\), expected 5.*truncated"),
    "not UTF-8": (with_row("1,2,3,x,a").replace(b"item1", b"it\xffem", 1), r"raw.csv, line 3: byte 0xff is not UTF-8"),
    "repeated column": (
        with_row("1,2,3,x,a").replace(b"price,user", b"price,price"),
        r"raw.csv, line 1: the header names column\(s\) \['price'\] more than once. Rename",
    ),
    "empty file": (b"", r"raw.csv: the file holds no rows"),
    "header alone": (HEADER.encode(), r"raw.csv: the file holds no rows"),
    "only positive": (
        (HEADER + "1,2,3,x,a\n" * 40).encode(),
        r"train split .* has 32 positive and 0 negative rows; a model",
    ),
    "three rows": (
        (HEADER + "1,2,3,x,a\n" * 3).encode(),
        r"validation split of data set 'table' has no rows.*larger share",
    ),
}


@pytest.mark.parametrize("case", CSV_CASES)
@pytest.mark.parametrize("quoted", [True, False])
def test_bad_csv(tmp_path: Path, case: str, quoted: bool) -> None:
    content, message = CSV_CASES[case]
    if case == "three rows":
        content = content.replace(b"1,2", b"0,2", 1)
    (tmp_path / "raw.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        ingest(table(tmp_path / "raw.csv", quoted=quoted), tmp_path / "out", options=OPTIONS)


def good_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "y": [i % 2 for i in range(40)],
            "price": [float(i) for i in range(40)],
            "user": list(range(40)),
            "item": ["x"] * 40,
            "tags": [["a"]] * 40,
        }
    )


PARQUET_CASES: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "missing column": (lambda f: f.drop("item"), r"column\(s\) \['item'\] of the schema are missing"),
    "list of numbers": (
        lambda f: f.with_columns(price=pl.col("tags")),
        r"row 1 .*'price': \['a'\] is List\(String\), not a number",
    ),
    "infinity": (lambda f: f.with_columns(price=pl.lit(float("-inf"))), r"row 1 .*'price': -inf is infinite"),
    "float key": (
        lambda f: f.with_columns(pl.col("user").cast(pl.Float64)),
        r"row 1 .*'user': 0.0 is Float64, which is no integer key",
    ),
    "float as text": (
        lambda f: f.with_columns(item=pl.col("price")),
        r"'item': 0.0 is Float64, which is no string key",
    ),
    "unsigned key": (
        lambda f: f.with_columns(user=pl.lit(2**63, dtype=pl.UInt64)),
        r"row 1 .*'user': 9223372036854775808 is no signed 64-bit integer",
    ),
    "plain number as list": (
        lambda f: f.with_columns(tags=pl.col("user")),
        r"'tags': 0 is Int64. A multi-valued column must be",
    ),
    "list of floats": (
        lambda f: f.with_columns(tags=pl.concat_list("price")),
        r"'tags': \[0.0\] is Float64, which is no string key",
    ),
    "label 2": (lambda f: f.with_columns(y=pl.lit(2)), r"row 1 .*'y': 2 is not a label"),
    "label NaN": (lambda f: f.with_columns(y=pl.lit(float("nan"))), r"row 1 .*'y': nan is not a label"),
    "no rows": (lambda f: f.head(0), r"raw.parquet: the file holds no rows"),
    "no tags at all": (
        lambda f: f.with_columns(tags=pl.lit([], dtype=pl.List(pl.String))),
        r"column 'tags': its vocabulary is empty",
    ),
}


@pytest.mark.parametrize("case", PARQUET_CASES)
def test_bad_parquet(tmp_path: Path, case: str) -> None:
    change, message = PARQUET_CASES[case]
    change(good_frame()).write_parquet(tmp_path / "raw.parquet")
    with pytest.raises(DataError, match=message):
        ingest(table(tmp_path / "raw.parquet", kind=FileKind.PARQUET), tmp_path / "out", options=OPTIONS)


def test_later_row_is_named_by_its_place_in_the_file(tmp_path: Path) -> None:
    frame = good_frame().with_columns(price=pl.when(pl.col("user") == 37).then(float("inf")).otherwise("price"))
    frame.write_parquet(tmp_path / "raw.parquet")
    with pytest.raises(DataError, match=r"row 38 \(from 1, header not counted\)"):
        ingest(table(tmp_path / "raw.parquet", kind=FileKind.PARQUET), tmp_path / "out", options=OPTIONS)


def test_truncated_parquet(tmp_path: Path) -> None:
    path = tmp_path / "raw.parquet"
    good_frame().write_parquet(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"raw.parquet: not a readable Parquet file .*truncated"):
        ingest(table(path, kind=FileKind.PARQUET), tmp_path / "out", options=OPTIONS)


COMPRESSED = {"raw.csv.gz": gzip.compress, "raw.csv.zst": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_files(tmp_path: Path, name: str) -> None:
    path, content = tmp_path / name, (HEADER + "".join(GOOD)).encode()
    packed = COMPRESSED[name](content)
    path.write_bytes(packed)
    assert sum(frame.height for frame in TextReader().frames(path, 8)) == 40
    path.write_bytes(
        COMPRESSED[name](content[:100]) + COMPRESSED[name](content[100:])
    )  # concatenated, as gzip and zstd allow
    assert TextReader().count_rows(path) == 40
    path.write_bytes(packed[:-12])
    with pytest.raises(DataError, match=rf"{name}: the file is truncated"):
        ingest(table(path), tmp_path / "out", options=OPTIONS)
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: not a readable .* file"):
        ingest(table(path), tmp_path / "out", options=OPTIONS)


LIBFM_CASES = {
    "too few ids": "1 4:1\n",
    "too many ids": "1 4:1 5:1 6:1\n",
    "a weight": "1 4:1 5:0.5\n",
    "no number": "1 4:1 x:1\n",
    "label 2": "2 4:1 5:1\n",
    "label missing": "4:1 5:1\n",
    "blank": "\n",
    "id beyond 64 bits": "1 4:1 99999999999999999999:1\n",
}


@pytest.mark.parametrize("case", LIBFM_CASES)
def test_bad_libfm(tmp_path: Path, case: str) -> None:
    good = ["1 1:1 2:1\n", "-1 2:1 3:1\n"] * 5
    for split in ("train", "validation", "test"):
        (tmp_path / split).write_text("".join([*good, LIBFM_CASES[case], *good] if split == "validation" else good))
    train, validation, test = (str(tmp_path / split) for split in ("train", "validation", "test"))
    dataset = LibfmDataset(train=train, validation=validation, test=test, fields=("user", "item"))
    with pytest.raises(DataError, match=r"validation, line 11: .* is not a libfm row.*\['user', 'item'\]"):
        ingest(dataset, tmp_path / "out", options=OPTIONS)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.tsv: no such file .*RECSYS_DATA"):
        ingest(CriteoDataset(path=str(tmp_path / "absent.tsv")), tmp_path / "out", options=OPTIONS)


def test_absent_file_of_a_public_data_set_in_a_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.tsv: no such file.* RECSYS_DATA"):
        file_fingerprint(tmp_path / "absent.tsv")  # what the stage does before it opens the data set


def test_criteo_of_another_form(tmp_path: Path) -> None:
    (tmp_path / "raw.tsv").write_text("1\t2\t3\n")
    with pytest.raises(DataError, match=r"raw.tsv, line 1: 3 value\(s\), expected 40"):
        ingest(CriteoDataset(path=str(tmp_path / "raw.tsv")), tmp_path / "out", options=OPTIONS)


def test_min_count_that_no_value_reaches(tmp_path: Path) -> None:
    good_frame().write_parquet(tmp_path / "raw.parquet")
    rare = (CategoricalFeature(name="user", key_type=KeyType.INTEGER, min_count=2),)
    dataset = table(tmp_path / "raw.parquet", kind=FileKind.PARQUET, categorical=rare)
    with pytest.raises(
        DataError, match=r"'user': its vocabulary is empty.*min_count=2 .*most frequent one occurs 1 times"
    ):
        ingest(dataset, tmp_path / "out", options=OPTIONS)


def test_missing_time(tmp_path: Path) -> None:
    good_frame().with_columns(t=pl.Series([*range(39), None])).write_parquet(tmp_path / "raw.parquet")
    rule = SplitConfig(method=SplitMethod.TIME, column="t")
    with pytest.raises(DataError, match=r"row 40 .*column 't': None is no time to split by"):
        ingest(table(tmp_path / "raw.parquet", kind=FileKind.PARQUET, split=rule), tmp_path / "out", options=OPTIONS)


def test_missing_numbers_and_keys_are_fine(tmp_path: Path) -> None:
    content = with_row(",,,,").replace(b",,,,", b"1,,,,") + b"0,nan,-1,,|\r\n"
    (tmp_path / "raw.csv").write_bytes(b"\xef\xbb\xbf" + content)
    manifest = ingest(table(tmp_path / "raw.csv"), tmp_path / "out", options=OPTIONS)
    assert sum(split.num_rows for split in manifest.splits.values()) == 42


def test_quoted_newlines_and_separators(tmp_path: Path) -> None:
    rows = "".join(f'{i % 2},1,{i},"item, ""{i}""\nsecond line",a\n' for i in range(40))
    (tmp_path / "raw.csv").write_text(HEADER + rows)
    frame = pl.concat(TextReader().frames(tmp_path / "raw.csv", 8))
    assert frame.height == 40 and frame["item"][3] == 'item, "3"\nsecond line'


def test_blocks_end_between_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.data.blocks.BLOCK_BYTES", 64)
    monkeypatch.setattr("recsys.data.compression.READ_BYTES", 50)
    rows = "".join(f'{i % 2},1,{i},"item\n{i}",a\n' for i in range(40))
    for name, content, quoted in (("q.csv", HEADER + rows, True), ("p.csv", HEADER + "".join(GOOD), False)):
        (tmp_path / name).write_text(content)
        reader = TextReader(quoted=quoted)
        frame = pl.concat(reader.frames(tmp_path / name, 3))
        assert frame["user"].to_list() == [str(i) for i in range(40)]
        assert reader.count_rows(tmp_path / name) == 40


def test_impossible_configs() -> None:
    with pytest.raises(ConfigError, match=r"must add up to 1|they must"):
        SplitConfig(train=0.8, validation=0.1, test=0.2)
    with pytest.raises(ConfigError, match=r"dataset.split.column='' with method TIME"):
        SplitConfig(method=SplitMethod.TIME)
    with pytest.raises(ConfigError, match=r"dataset.split.method=SHUFFLE with 0 dataset.files"):
        TableDataset(label="y")
    with pytest.raises(ConfigError, match=r"x.json: unknown kind of file"):
        reader_for(Path("x.json"), Schema(label="y", numeric=(NumericFeature(name="x"),)))
    with pytest.raises(ConfigError, match=r"separator='ab'"):
        TextReader(separator="ab")
    with pytest.raises(ConfigError, match=r"columns name \['a'\] more than once"):
        TextReader(columns=("a", "b", "a"))
    with pytest.raises(ConfigError, match=r"ingest.chunk_rows=0"):
        IngestOptions(chunk_rows=0)
