"""Side tables: rows with what they say joined by key are those that have it in the first place."""

import logging
from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.core.manifest import Manifest
from recsys.core.schema import CategoricalFeature, KeyType, NumericFeature
from recsys.data.dataset import SplitConfig, SplitMethod
from recsys.data.ingest import IngestOptions, ingest, input_fingerprint
from recsys.data.joined import SideTable
from recsys.data.table import FileKind, TableDataset
from tests.data.test_ingest import files_of

OPTIONS = IngestOptions(seed=3, rows_per_file=25, chunk_rows=7, max_rejected=0.1)
ITEMS = pl.DataFrame(
    {
        "item": ["i0", "i1", "i2", "i3"],
        "price": [1.5, None, 3.0, 4.0],
        "tags": [["a", "b"], [], ["b"], ["c"]],
        "brand": [1, 1, 2, 9],
    }
)
USERS = pl.DataFrame({"user": [3, 0, 1, 2, 4, 5], "age": [10, 20, 30, 40, 50, 60]})
BRANDS = pl.DataFrame({"brand": [1, 2], "country": ["de", "fr"]})
SIDES = (("item", ("price", "tags", "brand")), ("user", ("age",)), ("brand", ("country",)))


def rows(num_rows: int = 100) -> pl.DataFrame:
    found = {"y": [int(i * i % 7 < 2) for i in range(num_rows)], "item": [f"i{i % 5}" for i in range(num_rows)]}
    return pl.DataFrame(found | {"user": [None if i == 8 else i % 7 for i in range(num_rows)]})


def write(frame: pl.DataFrame, path: Path) -> str:
    texts = frame.with_columns(pl.col(pl.List(pl.String)).list.join("|"))
    match path.suffix:
        case ".parquet":
            frame.write_parquet(path)
        case ".arrow":
            frame.write_ipc(path)
        case ".jsonl":
            frame.write_ndjson(path)
        case ".gz":
            texts.write_csv(path, compression="gzip")
        case _:
            texts.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return str(path)


def dataset(file: str, side: tuple[SideTable, ...], kind: FileKind = FileKind.TEXT, **more: object) -> TableDataset:
    return TableDataset(
        files=(file,),
        kind=kind,
        label="y",
        numeric=(NumericFeature(name="price"), NumericFeature(name="age")),
        categorical=(
            CategoricalFeature(name="item"),
            CategoricalFeature(name="user", key_type=KeyType.INTEGER),
            CategoricalFeature(name="tags", multi_valued=True),
            CategoricalFeature(name="country"),
        ),
        passthrough=("brand",),
        side=side,
        **more,  # type: ignore[arg-type]
    )


def sides(folder: Path, ending: str) -> tuple[SideTable, ...]:
    for name, frame in (("item", ITEMS), ("user", USERS), ("brand", BRANDS)):
        write(frame, folder / f"{name}{ending}")
    return tuple(SideTable(files=(str(folder / f"{k}{ending}"),), key=k, columns=names) for k, names in SIDES)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz", ".jsonl", ".parquet", ".arrow"])
@pytest.mark.parametrize("kind", FileKind)
def test_joined_rows_are_rows_that_have_it(tmp_path: Path, ending: str, kind: FileKind) -> None:
    whole = rows().join(ITEMS, on="item", how="left", maintain_order="left")
    whole = whole.join(USERS, on="user", how="left", maintain_order="left")
    whole = whole.join(BRANDS, on="brand", how="left", maintain_order="left")
    own = {FileKind.TEXT: ".csv", FileKind.JSONL: ".jsonl", FileKind.PARQUET: ".parquet", FileKind.ARROW: ".arrow"}
    write(rows(), tmp_path / f"rows{own[kind]}")
    source = dataset(str(tmp_path / f"rows{own[kind]}"), sides(tmp_path, ending), kind)
    found = ingest(source, tmp_path / "joined", options=OPTIONS)
    expected = ingest(
        dataset(write(whole, tmp_path / "whole.parquet"), (), FileKind.PARQUET), tmp_path / "whole", options=OPTIONS
    )
    assert (found.splits, found.numeric, found.categorical) == (expected.splits, expected.numeric, expected.categorical)
    for split in ("train", "validation", "test"):
        one, other = (
            pl.read_parquet(tmp_path / name / split / "*.parquet").with_columns(pl.col("brand").cast(pl.String))
            for name in ("joined", "whole")
        )
        assert one.equals(other)


def test_several_files_and_unknown_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items, users, brands = sides(tmp_path, ".parquet")
    for i, part in enumerate((USERS.head(2), USERS.tail(4))):
        part.write_parquet(tmp_path / f"part{i}.parquet")
    parts = SideTable(files=(str(tmp_path / "part*.parquet"),), key="user", columns=("age",))
    file = write(rows(), tmp_path / "rows.csv")
    ingest(dataset(file, (items, users, brands)), tmp_path / "one", options=OPTIONS)
    with caplog.at_level(logging.WARNING):
        ingest(dataset(file, (items, parts, brands)), tmp_path / "two", options=OPTIONS)
    one, two = files_of(tmp_path / "one"), files_of(tmp_path / "two")
    assert one.pop("manifest.json") != two.pop("manifest.json"), "its fingerprint is of the files"
    assert [name for name in {*one, *two} if one.get(name) != two.get(name)] == []
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == 2 * [
        "20 of 100 rows have a 'item' that no side table knows: what it would say is missing there",
        "14 of 100 rows have a 'user' that no side table knows: what it would say is missing there",
        "20 of 100 rows have a 'brand' that no side table knows: what it would say is missing there",
    ], "a row without a user has none that is unknown"


def test_side_files_are_inputs(tmp_path: Path) -> None:
    source = dataset(write(rows(), tmp_path / "rows.csv"), sides(tmp_path, ".csv"))
    assert [path.name for path in source.inputs()] == ["rows.csv", "item.csv", "user.csv", "brand.csv"]
    before = input_fingerprint(source.open(tmp_path), seed=1)
    write(USERS.with_columns(pl.col("age") + 1), tmp_path / "user.csv")
    assert input_fingerprint(source.open(tmp_path), seed=1) != before


def test_split_by_a_joined_time(tmp_path: Path) -> None:
    split = SplitConfig(method=SplitMethod.TIME, column="age")
    options = IngestOptions(max_rejected=0.3)
    source = dataset(write(rows(), tmp_path / "rows.csv"), sides(tmp_path, ".csv"), split=split)
    manifest: Manifest = ingest(source, tmp_path / "out", options=options)
    assert manifest.num_rejected == 15
    assert manifest.splits["test"].num_rows == 14


def one_column(key: str, name: str) -> SideTable:
    return SideTable(files=("side.csv",), key=key, columns=(name,))


SIDE = SideTable(files=("side.csv",), key="item", columns=("price", "tags", "brand"))
CASES: dict[str, tuple[str, SideTable, str]] = {
    "two rows": ("item,price,tags,brand\na,1,,\na,2,,\n", SIDE, r"side.csv: item 'a' has more than one row"),
    "no key": ("item,price,tags,brand\na,1,,\n,2,,\n", SIDE, r"side.csv, row 2 .*: has no 'item'"),
    "no column": ("item,price,tags\na,1,x\n", SIDE, r"side.csv: column\(s\) \['brand'\] of dataset.side are missing"),
    "no rows": ("item,price,tags,brand\n", SIDE, r"side.csv: the file holds no rows \(dataset.side\)"),
    "no file": ("", SideTable(files=("no.csv",), key="item", columns=("price",)), r"no.csv: no such file"),
    "ragged": ("item,price,tags,brand\na,1\n", SIDE, r"side.csv, line 2: 2 value\(s\), expected 4"),
    "taken twice": ("item,y\ni1,1\n", one_column("item", "y"), r"has column.s. \['y'\]"),
    "rows lack it": ("thing,age\n1,1\n", one_column("thing", "age"), "column.s. ..thing.. of dataset.side are missing"),
    "no integer": ("user,age\nx,1\n", one_column("user", "age"), "column 'user': 'x' is no"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_side_tables(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content, side, message = CASES[case]
    monkeypatch.chdir(tmp_path)
    Path("side.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        ingest(dataset(write(rows(), tmp_path / "rows.csv"), (side,)), tmp_path / "out", options=OPTIONS)


def test_impossible_configs() -> None:
    for values in ({"files": ()}, {"key": ""}, {"columns": ()}, {"columns": ("item",)}, {"columns": ("a", "a")}):
        with pytest.raises(ConfigError, match=r"dataset.side: files="):
            SideTable(**{"files": ("a",), "key": "item", "columns": ("b",), **values})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"dataset.side and history give column\(s\) \['price'\] twice"):
        dataset("rows.csv", (SIDE, SideTable(files=("b.csv",), key="user", columns=("price",))))
