"""Input that a parser would take, and make other rows of; and types that no conversion takes."""

import json
import time
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.core.manifest import Manifest
from recsys.core.schema import CategoricalFeature, KeyType, NumericFeature, Schema, TimeForm, Timestamp
from recsys.data.dataset import SplitConfig, SplitMethod
from recsys.data.faults import ANYWHERE, FAULT
from recsys.data.infer import propose
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.json_lines import JsonLinesReader
from recsys.data.look import look
from recsys.data.raw import normalise
from recsys.data.table import FileKind, TableDataset
from recsys.data.text import TextReader
from tests.data.test_rejected import table as plain_table

OPTIONS = IngestOptions(seed=3, rows_per_file=20, chunk_rows=7)
HEADER = "y,price,user,item,at\n"
ROWS = [f"{i % 2},{i}.5,{i % 7},i{i % 5},{i}\n" for i in range(60)]


def table(path: Path, **changes: object) -> TableDataset:
    return plain_table(path, **{"split": SplitConfig(), **changes})


def ingested(path: Path, content: str | bytes, **changes: object) -> Manifest:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return ingest(table(path, **changes), path.parent / "out", options=OPTIONS)


def test_two_stray_quotes_are_no_long_value(tmp_path: Path) -> None:
    rows = [row.replace("i3", '"i\\"3"') for row in ROWS]
    with pytest.raises(DataError, match=r"raw.csv, line 5: a double quote opens inside a value"):
        ingested(tmp_path / "raw.csv", HEADER + "".join(rows))
    assert ingested(tmp_path / "raw.csv", HEADER + "".join(rows), quoted=False).splits["train"].num_rows == 48


def test_a_stray_quote_behind_the_first_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.data.blocks.BLOCK_BYTES", 64)
    monkeypatch.setattr("recsys.data.compression.READ_BYTES", 50)
    (tmp_path / "raw.csv").write_text(HEADER + "".join(ROWS[:30]) + '1,1,1,"i3,5\n' + "".join(ROWS[30:]))
    assert TextReader().count_rows(tmp_path / "raw.csv") == 61, "the quote ends with its line"
    with pytest.raises(DataError, match="line 32: a double quote opens"):
        list(TextReader().frames(tmp_path / "raw.csv", 7))
    monkeypatch.setattr("recsys.data.blocks.MAX_ROW_BYTES", 200)
    assert TextReader().count_rows(tmp_path / "raw.csv") == 61
    with pytest.raises(DataError, match="line 32: a double quote opens"):
        list(TextReader().frames(tmp_path / "raw.csv", 7))
    (tmp_path / "raw.csv").write_text(HEADER + "a" * 300)
    with pytest.raises(DataError, match=r"line 2: has more than 0 MiB. Probably the lines do not end with a newline"):
        TextReader(quoted=False).count_rows(tmp_path / "raw.csv")


def test_a_stray_quote_before_many_lines_is_told_soon(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text(HEADER + '1,1,1,"i3,5\n' + "".join(ROWS) * 20_000)
    started = time.monotonic()
    with pytest.raises(DataError, match="line 2: a double quote opens"):
        list(TextReader().frames(tmp_path / "raw.csv", 7))
    assert time.monotonic() - started < 10


def test_headers_may_hold_quotes_as_rows_may(tmp_path: Path) -> None:
    path = tmp_path / "raw.csv"
    path.write_text(HEADER.replace("price", '"pri\nce, ""x"""') + ROWS[0])
    (frame,) = TextReader().frames(path, 7)
    assert frame.columns == ["y", 'pri\nce, "x"', "user", "item", "at"] and TextReader().count_rows(path) == 1
    path.write_text(HEADER.replace("price", 'pri"ce') + ROWS[0])
    with pytest.raises(DataError, match="line 1, the header: a double quote opens inside a value"):
        list(TextReader().frames(path, 7))
    (frame,) = TextReader(quoted=False).frames(path, 7)
    assert frame.columns[1] == 'pri"ce'
    path.write_bytes((HEADER.replace("price", "pr\xe9ce") + ROWS[0]).encode("latin-1"))
    with pytest.raises(DataError, match=r"line 1: cannot be read as a header \(.*\). The file must be UTF-8 text"):
        list(TextReader().frames(path, 7))


def test_a_return_behind_a_quote_ends_no_value(tmp_path: Path) -> None:
    path = tmp_path / "raw.csv"
    path.write_bytes(HEADER.encode() + b'1,0.5,3,"a"\rb,5\n' + "".join(ROWS).encode())
    (frame,) = TextReader().frames(path, 100, keep_damaged=True)
    assert frame[FAULT].is_not_null().to_list() == [True] + [False] * 60
    with pytest.raises(DataError, match="line 2: a double quote opens"):
        list(TextReader().frames(path, 7))


def test_a_stray_quote_is_told_before_what_it_does_to_the_number_of_values(tmp_path: Path) -> None:
    rows = [row.replace("i3", '"i3"') for row in ROWS]
    with pytest.raises(DataError, match="line 32: a double quote opens"):
        ingested(tmp_path / "raw.csv", HEADER + "".join([*rows[:30], '1,1,1,i"3,5\n', *rows[30:]]))


def test_infer_takes_quotes_for_what_most_rows_take_them_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.data.blocks.BLOCK_BYTES", 200)
    monkeypatch.setattr("recsys.data.compression.READ_BYTES", 40)
    path = tmp_path / "raw.csv"
    quoted = [f'{i % 2},{i}.5,{i % 7},"i\n{i % 5}, and so on",{i}\n' for i in range(60)]
    path.write_text(HEADER + "".join(quoted))
    assert look(path, 100).quoted and look(path, 100).frame.height == 60
    path.write_text(HEADER + "".join([*quoted[:30], '1,1,1,i"3,5\n', *quoted[30:]]))
    with pytest.raises(DataError, match="line 62: a double quote opens"):
        look(path, 100)
    path.write_text(HEADER + "".join(row.replace("i3", '6" wide') for row in ROWS))
    assert not look(path, 100).quoted


@pytest.mark.parametrize(("no", "yes"), [("False", "True"), ("FALSE", "TRUE"), ("false", "true")])
def test_truth_as_others_write_it(tmp_path: Path, no: str, yes: str) -> None:
    text = HEADER + "".join((yes if row[0] == "1" else no) + row[1:] for row in ROWS)
    assert ingested(tmp_path / "raw.csv", text).splits["train"].num_positive == 25
    assert 'label: "y"   # 0 and 1; 1 on 50.00%' in propose(
        look(tmp_path / "raw.csv", 60), ["raw.csv"], label="", name="x"
    )


def test_compressed_files_with_a_loud_ending(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_csv(tmp_path / "raw.csv.gz", compression="gzip")
    (tmp_path / "raw.csv.gz").rename(tmp_path / "raw.CSV.GZ")
    assert TextReader().count_rows(tmp_path / "raw.CSV.GZ") == 1


def lines(**last: object) -> str:
    rows = [{"y": i % 2, "price": i, "user": i % 7, "item": f"i{i % 5}"} for i in range(60)]
    return "".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], **last}])


def test_a_json_key_that_no_line_has(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"raw.jsonl: no line has the key\(s\) \['itme'\]"):
        ingested(tmp_path / "raw.jsonl", lines(), kind=FileKind.JSONL, categorical=(CategoricalFeature(name="itme"),))


JSON_CASES = {
    "NaN": (lines(price=float("nan")), "line 61: is not JSON .it has no NaN: a missing number is null"),
    "deep": (lines()[:-2] + ',"z":' + "[" * 3000 + "]" * 3000 + "}\n", "line 61: is nested too deep"),
    "a list": (
        lines(item=["i1"]),
        r"line 61: the key\(s\) \['item'\] hold a list or an object where one value is read",
    ),
    "an object": (lines(item={"id": "i1"}), r"line 61: the key\(s\) \['item'\] hold a list or an object"),
    "a number that is none": (lines()[:-2] + ',"z":01e}\n', "line 61: is not JSON"),
}


@pytest.mark.parametrize("case", JSON_CASES)
def test_bad_json(tmp_path: Path, case: str) -> None:
    content, message = JSON_CASES[case]
    with pytest.raises(DataError, match=message):
        ingested(tmp_path / "raw.jsonl", content, kind=FileKind.JSONL)
    options = IngestOptions(seed=3, max_rejected=0.1)
    assert ingest(table(tmp_path / "raw.jsonl", kind=FileKind.JSONL), tmp_path / "o", options=options).num_rejected == 1


def test_text_that_looks_nested_is_text(tmp_path: Path) -> None:
    (tmp_path / "raw.jsonl").write_text(lines(item="[i1]") + json.dumps({"y": 1, "item": "{"}) + "\n")
    found = pl.concat(JsonLinesReader(columns=("y", "item")).frames(tmp_path / "raw.jsonl", 100))["item"]
    assert found[-2:].to_list() == ["[i1]", "{"]


def test_json_with_a_byte_order_mark(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + lines().encode()
    assert ingested(tmp_path / "raw.jsonl", content, kind=FileKind.JSONL).splits["train"].num_rows == 49
    assert look(tmp_path / "raw.jsonl", 5).frame.columns == ["y", "price", "user", "item"]
    reader = JsonLinesReader(columns=("y",))
    assert pl.concat(reader.frames(tmp_path / "raw.jsonl", 7, first_row=59))["y"].to_list() == ["1", "0"]


SCHEMA = Schema(
    label="y",
    numeric=(NumericFeature(name="price"),),
    categorical=(
        CategoricalFeature(name="item"),
        CategoricalFeature(name="user", key_type=KeyType.INTEGER),
        CategoricalFeature(name="tags", multi_valued=True),
    ),
    timestamps=(Timestamp(name="iso"), Timestamp(name="at", form=TimeForm.SECONDS)),
)
NESTED = {
    "struct": pl.struct("n"),
    "list of structs": pl.concat_list(pl.struct("n")),
    "array": pl.concat_list("n", "n").list.to_array(2),
    "binary": pl.col("n").cast(pl.String).cast(pl.Binary),
    "duration": pl.lit(timedelta(1)),
}


def typed(**changed: pl.Expr | pl.Series) -> pl.DataFrame:
    columns = {"y": [0, 1], "price": [1.5, 2], "item": ["a", "b"], "user": [1, 2], "tags": [["a"], ["b"]]}
    times = {"iso": ["2020-01-01", "2020-01-02"], "at": [5, 6], "n": [0, 1]}
    return pl.DataFrame(columns | times).with_columns(**changed)


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("name", ["y", "price", "item", "user", "tags", "iso", "at"])
def test_types_that_mean_nothing_are_refused_by_name(kind: str, name: str) -> None:
    with pytest.raises(DataError, match=rf"row 1 .*, column {name!r}: .* is (Struct|List|Array|Binary|Duration)"):
        normalise(typed(**{name: NESTED[kind]}), SCHEMA, ANYWHERE)
    if name != "y":
        empty = typed(**{name: pl.when(pl.lit(False)).then(NESTED[kind])})
        assert normalise(empty, SCHEMA, ANYWHERE).height == 2, "of a column without values the type means nothing"


def test_coded_texts_are_texts() -> None:
    coded = typed(**{n: pl.col(n).cast(pl.String).cast(pl.Categorical) for n in ("item", "at", "iso")})
    coded = coded.with_columns(tags=pl.Series(["a|b", "b"]).cast(pl.Categorical))
    plain = typed(tags=pl.Series(["a|b", "b"]))
    assert normalise(coded, SCHEMA, ANYWHERE).equals(normalise(plain, SCHEMA, ANYWHERE))
    for kind in (pl.Categorical, pl.Enum(["1", "0"])):
        with pytest.raises(DataError, match=r"column 'y': '0' is (Categorical|Enum).*, not a number"):
            normalise(typed(y=pl.Series(["0", "1"]).cast(kind)), SCHEMA, ANYWHERE)


def test_whole_seconds_with_a_point() -> None:
    found = normalise(typed(at=pl.Series(["5.0", "6.00"])), SCHEMA, ANYWHERE)
    assert found.equals(normalise(typed(), SCHEMA, ANYWHERE))
    for wrong in (pl.Series(["5.5", "6"]), pl.Series(["5.50", "6"]).cast(pl.Decimal(5, 2))):
        with pytest.raises(DataError, match=r"column 'at': .* is no time of form seconds"):
            normalise(typed(at=wrong), SCHEMA, ANYWHERE)


TIMES = {
    "a text among numbers": ({3: "x"}, r"holds numbers \('0'\) and other texts \('x'\)"),
    "NaN among numbers": ({3: "nan"}, r"holds numbers \('0'\) and other texts \('nan'\)"),
    "days first": ({i: f"{1 + i % 28:02d}/01/2020" for i in range(60)}, r"holds dates like '01/01/2020', whose text"),
}


@pytest.mark.parametrize("case", TIMES)
def test_texts_that_do_not_sort_by_time(tmp_path: Path, case: str) -> None:
    changed, message = TIMES[case]
    rows = [f"{row.rpartition(',')[0]},{changed.get(i, i)}\n" for i, row in enumerate(ROWS)]
    with pytest.raises(DataError, match=f"column 'at' {message}"):
        ingested(tmp_path / "raw.csv", HEADER + "".join(rows), split=SplitConfig(method=SplitMethod.TIME, column="at"))


def test_what_is_no_time_to_split_by(tmp_path: Path) -> None:
    path = tmp_path / "raw.parquet"
    source = table(path, kind=FileKind.PARQUET, split=SplitConfig(method=SplitMethod.TIME, column="at"))
    frame = pl.read_csv((HEADER + "".join(ROWS)).encode()).cast({"at": pl.Float64})
    frame.with_columns(at=pl.col("at").replace(7.0, float("nan"))).write_parquet(path)
    with pytest.raises(DataError, match=r"row 8 .*column 'at': nan is no time to split by"):
        ingest(source, tmp_path / "out", options=OPTIONS)
    assert ingest(source, tmp_path / "o", options=IngestOptions(max_rejected=0.1)).num_rejected == 1
    frame.with_columns(at=pl.concat_list("at")).write_parquet(path)
    with pytest.raises(DataError, match=r"column 'at': .* is List\(Float64\), no time to split by"):
        ingest(source, tmp_path / "out", options=OPTIONS)


def test_a_proposal_leaves_out_what_ingest_would_refuse(tmp_path: Path) -> None:
    columns: dict[str, pl.Expr] = {kind.replace(" ", "_"): expression for kind, expression in NESTED.items()}
    columns |= {"numbers": pl.concat_list("n").cast(pl.List(pl.Float64)), "a.b": pl.col("n")}
    frame = pl.DataFrame({"y": [0, 1] * 30, "n": [i % 7 for i in range(60)]})
    frame = frame.with_columns(**columns, code=pl.col("n").cast(pl.String).cast(pl.Categorical))
    frame.write_parquet(tmp_path / "raw.parquet")
    text = propose(look(tmp_path / "raw.parquet", 60), ["raw.parquet"], label="", name="x")
    used, left_out = text.split("# Left out:")
    assert all(f'"{name}"' in left_out and f'"{name}"' not in used for name in columns)
    assert '{name: "code"}' in used


def test_a_proposal_for_quotes_that_mean_nothing(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text(HEADER + "".join(row.replace("i3", '3" screen') for row in ROWS))
    assert "quoted: false" in propose(look(tmp_path / "raw.csv", 60), ["raw.csv"], label="", name="x")
    (tmp_path / "raw.jsonl").write_text('[["y", 1]]\n')
    with pytest.raises(DataError, match="a line is no JSON object"):
        look(tmp_path / "raw.jsonl", 5)


def test_a_kept_column_of_two_types(tmp_path: Path) -> None:
    frame = pl.read_csv((HEADER + "".join(ROWS)).encode())
    for i, dtype in enumerate((pl.Int64, pl.String)):
        frame.cast({"at": dtype}).write_parquet(tmp_path / f"{i}.parquet")
    source = table(tmp_path / "*.parquet", kind=FileKind.PARQUET, passthrough=("at",))
    with pytest.raises(DataError, match=r"column 'at' is Int64 in .*0.parquet and String in .*1.parquet"):
        ingest(source, tmp_path / "out", options=OPTIONS)
