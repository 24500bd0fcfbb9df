"""Histories of rows against plain Python: what the row's user did before it, and nothing of now or later."""

import logging
import math
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from recsys.core.errors import ConfigError, DataError
from recsys.core.manifest import Manifest
from recsys.core.schema import CategoricalFeature, KeyType, TimeForm, Timestamp
from recsys.data.dataset import SPLIT_NAMES, SplitConfig, SplitMethod
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.joined import SideTable
from recsys.data.past import History
from recsys.data.table import FileKind, TableDataset
from tests.data.test_joined import write

OPTIONS = IngestOptions(seed=3, rows_per_file=25, chunk_rows=7, max_rejected=0.1)
HISTORY = History(user="user", time="time", columns=("item", "kind"), behaviour="y", behaviours=("1",), max_length=4)
KINDS = pl.DataFrame({"item": [f"i{n}" for n in range(9)], "kind": [n % 3 if n else None for n in range(9)]})


def rows(num_rows: int = 120, *, seed: int = 0) -> pl.DataFrame:
    """Impressions in no order, many at the same time."""
    torch.manual_seed(seed)
    drawn = torch.randint(0, 1 << 20, (4, num_rows))
    items = [f"i{n % 9}" for n in drawn[0].tolist()]
    users = [None if n % 11 == 0 else f"u{n % 5}" for n in drawn[1].tolist()]
    return pl.DataFrame(
        {
            "y": (drawn[2] % 2).tolist(),
            "item": items,
            "user": users,
            "time": (1_600_000_000 + 7 * (drawn[3] % 60)).tolist(),
        }
    ).join(KINDS, on="item", how="left", maintain_order="left")


def expected(impressions: pl.DataFrame, log: pl.DataFrame, max_length: int = 4) -> list[dict[str, list[object]]]:
    """Item, kind and gap lists of each row, by looking at all events for each."""
    found = []
    for row in impressions.to_dicts():
        past = [
            (event["time"], place, event)
            for place, event in enumerate(log.to_dicts())
            if event["y"] == 1 and row["user"] is not None and event["user"] == row["user"]
            if row["time"] is not None and event["time"] < row["time"]
        ]
        newest = [event for *_, event in sorted(past, key=lambda each: each[:2], reverse=True)[:max_length]]
        gaps = [math.floor(math.log2(row["time"] - event["time"])) + 1 for event in newest]
        missing = str(-(2**63))
        kinds = [missing if event["kind"] is None else str(event["kind"]) for event in newest]
        found.append({"hist_item": [e["item"] for e in newest], "hist_kind": kinds, "hist_gap": gaps})
    return found


def dataset(file: str, kind: FileKind, *history: History, **more: object) -> TableDataset:
    return TableDataset(
        files=(file,),
        kind=kind,
        label="y",
        categorical=(
            CategoricalFeature(name="item"),
            CategoricalFeature(name="user"),
            CategoricalFeature(name="kind", key_type=KeyType.INTEGER),
            CategoricalFeature(name="hist_item", multi_valued=True, vocabulary="item"),
            CategoricalFeature(name="hist_kind", multi_valued=True, vocabulary="kind", key_type=KeyType.INTEGER),
            CategoricalFeature(name="hist_gap", multi_valued=True, key_type=KeyType.INTEGER),
        ),
        timestamps=(Timestamp(name="time", form=TimeForm.SECONDS),),
        history=history or (HISTORY,),
        **more,  # type: ignore[arg-type]
    )


def read(found: TableDataset, folder: Path) -> pl.DataFrame:
    """The raw rows with their lists, as text where they hold keys."""
    table = found.open(folder)
    parts = [part for file in table.files for part in table.reader.frames(file.path, 13)]
    return pl.concat(parts).with_columns(pl.col("hist_kind").cast(pl.List(pl.String)))


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz", ".jsonl", ".parquet", ".arrow"])
@pytest.mark.parametrize("own", [True, False])
def test_histories_are_what_a_search_of_all_events_finds(tmp_path: Path, ending: str, own: bool) -> None:
    impressions, log = rows(), rows(seed=0 if own else 1)
    kinds = {".jsonl": FileKind.JSONL, ".parquet": FileKind.PARQUET, ".arrow": FileKind.ARROW}
    file, kind = write(impressions, tmp_path / f"rows{ending}"), kinds.get(ending, FileKind.TEXT)
    files = () if own else (write(log, tmp_path / f"log{ending}"),)
    history = replace(HISTORY, files=files)
    separator = {"separator": "\t"} if ending == ".tsv" else {}
    found = read(dataset(file, kind, history, **separator), tmp_path)
    assert found.select("hist_item", "hist_kind", "hist_gap").to_dicts() == expected(impressions, log)
    assert any(found["hist_item"].list.len() == 4) and any(found["hist_item"].list.len() == 0)


@pytest.mark.parametrize("dtype", [pl.Boolean, pl.Float32, pl.String])
def test_a_label_of_another_type_chooses_the_same_events(tmp_path: Path, dtype: type[pl.DataType]) -> None:
    impressions = rows()
    label = pl.col("y").cast(pl.Boolean) if dtype == pl.Boolean else pl.col("y").cast(dtype)
    file = write(impressions.with_columns(label), tmp_path / "rows.parquet")
    found = read(dataset(file, FileKind.PARQUET), tmp_path)
    assert found.select("hist_item", "hist_kind", "hist_gap").to_dicts() == expected(impressions, impressions)


def test_columns_that_side_tables_give_are_in_the_rows_own_log(tmp_path: Path) -> None:
    impressions = rows()
    file = write(impressions.drop("kind"), tmp_path / "rows.jsonl")
    side = SideTable(files=(write(KINDS, tmp_path / "kinds.csv"),), key="item", columns=("kind",))
    found = read(dataset(file, FileKind.JSONL, side=(side,)), tmp_path)
    assert found.select("hist_item", "hist_kind", "hist_gap").to_dicts() == expected(impressions, impressions)


@pytest.mark.parametrize("key_type", KeyType)
@pytest.mark.parametrize("in_log", [True, False])
def test_users_written_as_floats_are_those_written_as_integers(tmp_path: Path, key_type: KeyType, in_log: bool) -> None:
    whole = rows().with_columns(pl.col("user").str.slice(1).cast(pl.Int64))
    floats = whole.with_columns(pl.col("user").cast(pl.Float64).fill_null(float("nan")))
    log, impressions = (floats, whole) if in_log else (whole, floats)
    history = replace(HISTORY, files=(write(log, tmp_path / "log.parquet"),))
    source = dataset(write(impressions, tmp_path / "rows.parquet"), FileKind.PARQUET, history)
    named = (replace(each, key_type=key_type) if each.name == "user" else each for each in source.categorical)
    found = read(replace(source, categorical=tuple(named)), tmp_path)
    assert found.select("hist_item", "hist_kind", "hist_gap").to_dicts() == expected(whole, whole)


def test_the_future_and_the_present_change_nothing(tmp_path: Path) -> None:
    impressions = rows()
    whole = expected(impressions, impressions)
    for cut in impressions["time"].unique().sort().to_list()[::7]:
        past = impressions.filter(pl.col("time") < cut)
        file = write(past, tmp_path / f"log{cut}.parquet") if past.filter(pl.col("y") == 1).height else ""
        if not file:
            continue
        history = replace(HISTORY, files=(file,))
        found = read(dataset(write(impressions, tmp_path / "rows.csv"), FileKind.TEXT, history), tmp_path)
        upto = [place for place, time in enumerate(impressions["time"]) if time <= cut]
        assert [found.select("hist_item", "hist_kind", "hist_gap").to_dicts()[n] for n in upto] == [
            whole[n] for n in upto
        ]


def test_ingest_encodes_them_and_says_which_rows_had_no_time(tmp_path: Path) -> None:
    impressions = rows().with_columns(pl.col("time").cast(pl.String))
    impressions[3, "time"] = "soon"  # in no history either
    file = write(impressions, tmp_path / "rows.csv")
    split = SplitConfig(method=SplitMethod.TIME, column="time")
    ingest(dataset(file, FileKind.TEXT, split=split), tmp_path / "out", options=OPTIONS)
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.num_rejected == 1 and "time" not in manifest.schema.raw_columns
    sound = impressions.filter(pl.col("time") != "soon").with_columns(pl.col("time").cast(pl.Int64))
    lengths = sorted(len(each["hist_item"]) for each in expected(sound, sound))
    encoded = [pl.read_parquet(path) for part in SPLIT_NAMES for path in (tmp_path / "out" / part).glob("*.parquet")]
    assert sorted(pl.concat(encoded)["hist_item"].list.len()) == lengths


def test_a_missing_item_is_the_same_id_in_a_row_and_in_a_history(tmp_path: Path) -> None:
    """In the user's second event, where the first, missing, is the history."""
    events = {"y": [1, 0] * 30, "user": [f"u{n // 2}" for n in range(60)], "item": [None, "i1"] * 30}
    frame = pl.DataFrame(events | {"time": [1_600_000_000 + n for n in range(60)]})
    source = replace(
        dataset(write(frame, tmp_path / "rows.csv"), FileKind.TEXT, replace(HISTORY, columns=("item",))),
        categorical=(
            CategoricalFeature(name="item"),
            CategoricalFeature(name="hist_item", multi_valued=True, vocabulary="item"),
        ),
    )
    ingest(source, tmp_path / "out", options=OPTIONS)
    encoded = pl.concat([pl.read_parquet(path) for path in (tmp_path / "out").glob("*/part-*.parquet")])
    (first,) = encoded.filter(pl.col("hist_item").list.len() == 0)["item"].unique()
    assert encoded["hist_item"].explode().drop_nulls().unique().to_list() == [first]
    assert first != 0 and Manifest.read(tmp_path / "out").categorical["item"].num_embeddings == 3


def test_another_rule_is_another_fingerprint(tmp_path: Path) -> None:
    file = write(rows(), tmp_path / "rows.csv")
    prints = set()
    for length in (2, 3):
        history = replace(HISTORY, max_length=length)
        ingest(dataset(file, FileKind.TEXT, history), tmp_path / str(length), options=OPTIONS)
        prints.add(Manifest.read(tmp_path / str(length)).fingerprint)
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"columns": ()}, "each once and none of them"),
        ({"columns": ("item", "gap")}, "none of them 'gap'"),
        ({"behaviours": ()}, "name the column and the values to keep"),
        ({"max_length": 0}, "must be 1 or more"),
        ({"time": "when"}, "is none of dataset.timestamps"),
        ({"prefix": ""}, "prefix='': must not be empty"),
    ],
)
def test_impossible_histories_are_refused(changed: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        dataset("rows.csv", FileKind.TEXT, replace(HISTORY, **changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("log", "changed", "told"),
    [
        (rows().drop("user"), {}, r"log.parquet: column\(s\) \['user'\] of dataset.history are missing"),
        (rows().with_columns(item=pl.lit(["i"])), {}, "row 1 .*'item'.*is no string key"),
        (rows(), {"behaviours": ("buy",)}, r"no row, whose 'y' is one of \['buy'\], has a 'user' and a 'time'"),
        (rows().with_columns(time=pl.lit("soon")), {}, "row 1 .*'time': 'soon' is no time of form seconds"),
        (rows().with_columns(kind=pl.lit("abc")), {}, "log.parquet, row 1 .*'kind': 'abc' is no signed 64-bit integer"),
        (rows().clear(), {}, "there is no event"),
        (None, {}, "log.parquet: no such file"),
    ],
)
def test_unusable_logs_are_refused(
    tmp_path: Path, log: pl.DataFrame | None, changed: dict[str, object], told: str
) -> None:
    if log is not None:
        log.write_parquet(tmp_path / "log.parquet")
    history = replace(HISTORY, files=(str(tmp_path / "log.parquet"),), **changed)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=told):
        dataset(write(rows(), tmp_path / "rows.csv"), FileKind.TEXT, history).open(tmp_path)


def test_an_event_that_is_no_key_is_in_no_history(tmp_path: Path) -> None:
    """Its row is told and set aside, those of its user stay."""
    impressions = rows().with_columns(pl.col("kind").cast(pl.String))
    (bad,) = impressions.with_row_index().filter((pl.col("y") == 1) & pl.col("user").is_not_null())["index"][:1]
    impressions[bad, "kind"] = "abc"
    ingest(dataset(write(impressions, tmp_path / "rows.csv"), FileKind.TEXT), tmp_path / "out", options=OPTIONS)
    assert Manifest.read(tmp_path / "out").num_rejected == 1


def test_users_of_spaces_are_nobody(tmp_path: Path) -> None:
    """Else all of them were one user with a long history."""
    blank = write(rows().with_columns(pl.col("user").fill_null("  ")), tmp_path / "rows.csv")
    found = read(dataset(blank, FileKind.TEXT), tmp_path).select("hist_item", "hist_kind", "hist_gap")
    assert found.to_dicts() == expected(rows(), rows()) and rows()["user"].null_count() > 5


def test_a_log_named_twice_is_refused(tmp_path: Path) -> None:
    file = write(rows(), tmp_path / "log.parquet")
    history = replace(HISTORY, files=(file, str(tmp_path / "*.parquet")))
    with pytest.raises(DataError, match=r"log.parquet: is named more than once"):
        dataset(write(rows(), tmp_path / "rows.csv"), FileKind.TEXT, history).open(tmp_path)


def test_rows_that_nothing_came_before_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    late = write(rows().with_columns(pl.col("time") + 10_000_000), tmp_path / "log.parquet")
    empty = dataset(write(rows(), tmp_path / "rows.csv"), FileKind.TEXT, replace(HISTORY, files=(late,)))
    shared = tuple(feature for feature in empty.categorical if feature.name != "hist_gap")
    with caplog.at_level(logging.INFO):
        ingest(replace(empty, categorical=shared), tmp_path / "out", options=OPTIONS)
    assert "120 of 120 rows have an empty 'hist_item'" in caplog.text
    assert "5 users, 2021-01-07" in caplog.text, "when the log's events were"


def test_rows_with_a_list_of_their_own_are_refused(tmp_path: Path) -> None:
    file = write(rows().with_columns(hist_item=pl.lit("x")), tmp_path / "rows.csv")
    with pytest.raises(DataError, match=r"has column\(s\) \['hist_item'\], which dataset.history gives too"):
        read(dataset(file, FileKind.TEXT), tmp_path)
