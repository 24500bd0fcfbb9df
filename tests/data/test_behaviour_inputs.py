"""Forms of logs and side files, and what is refused of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.core.schema import MISSING_KEY, KeyType
from recsys.data.behaviours import BehaviourDataset
from recsys.data.event_log import EventLog, LogKind
from recsys.data.events import EventStore
from recsys.data.faults import Rejected
from recsys.data.histories import SplitTargets
from recsys.data.made import Made
from recsys.data.side import SideFile
from tests.data.behaviour_logs import CHRONOLOGICAL, TEN, dataset_of, random_log, rows
from tests.data.test_joined import write


def test_a_log_without_times_is_in_file_order(tmp_path: Path) -> None:
    lines = [f"{user},{user}{item}" for item in "abcd" for user in "xy"]
    table = dataset_of(tmp_path, "user,item\n" + "\n".join(lines) + "\n", log_time="", log_attributes=()).open(tmp_path)
    test = rows(table, "test")
    assert test["place"].to_list() == [3] * 4 and test["hist_gap"].to_list() == [[1, 2, 2]] * 4
    assert test["hist_item"].to_list()[0] == ["xc", "xb", "xa"]


@pytest.mark.parametrize("kind", [LogKind.JSONL, LogKind.PARQUET, LogKind.ARROW])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: LogKind) -> None:
    events = random_log(80, 1)
    options: dict[str, Any] = {"log_behaviour": "category", "log_behaviours": ("c0", "c1", "c2", "c3")}
    of_text = rows(dataset_of(tmp_path, events, **options).open(tmp_path / "text"))
    file = write(events, tmp_path / f"log.{kind.value}")
    found = rows(dataset_of(tmp_path, **options, log_kind=kind, log_files=(file,)).open(tmp_path / "other"))
    assert found.equals(of_text) and found.height


def test_lines_of_users_with_attributes_of_json(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("1 5 6 7 8\n2 15 16 17 15\n3\n")
    # 9 is on three items, 4 and 3 on two, 2 on one; item 7 has one attribute twice, 8 none, and 17 is not named.
    side = {"5": [9, 4], "6": [4, 9, 3], "7": [9, 9], "8": [], "15": [3, 2], "16": [1]}
    (tmp_path / "side.json").write_text(json.dumps(side))
    log = EventLog(
        files=(str(tmp_path / "log.txt"),), kind=LogKind.USERS, separator=" ", time="", key_type=KeyType.INTEGER
    )
    dataset = BehaviourDataset(
        log=log, side=SideFile(path=str(tmp_path / "side.json"), attributes=("first", "second")), repeated_targets=True
    )
    frame = rows(dataset.open(tmp_path))
    pairs = {item: (one, two) for item, one, two in frame.select("item", "first", "second").rows()}
    for items, one, two in frame.select("hist_item", "hist_first", "hist_second").rows():
        pairs.update({item: (a, b) for item, a, b in zip(items, one, two, strict=True)})
    none = MISSING_KEY
    assert pairs == {5: (4, 9), 6: (3, 4), 7: (9, none), 8: (none, none), 15: (2, 3), 16: (1, none), 17: (none, none)}
    assert frame.filter((pl.col("item") == 15) & (pl.col("label") == 1))["hist_item"].to_list() == [[17, 16, 15]]
    shared = {feature.name: feature.vocabulary for feature in dataset.schema().categorical}
    assert shared["second"] == shared["hist_first"] == shared["hist_second"] == "first" and shared["first"] == ""


@pytest.mark.parametrize("ending", [".tsv", ".parquet"])
def test_attributes_of_a_table(tmp_path: Path, ending: str) -> None:
    table = pl.DataFrame({"item": ["i1", "k1", "k3"], "price": [3, 5, None], "other": ["x"] * 3})
    path = tmp_path / f"side{ending}"
    table.write_parquet(path) if ending == ".parquet" else table.write_csv(path, separator="\t")
    dataset = dataset_of(tmp_path, side=SideFile(path=str(path), attributes=("price",)), max_length=3)
    test = rows(dataset.open(tmp_path), "test").filter(pl.col("user") == "b")
    assert test["hist_price"].to_list() == [["(missing)", "(missing)", "5"]] * 2
    assert test["hist_category"].to_list() == [["c3", "c2", "c2"]] * 2
    assert {f.name: f.vocabulary for f in dataset.schema().categorical}["hist_price"] == "price"


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        (["1970-01-01", "1970-01-02", "1970-01-03", "1970-01-04"], [0, 86_400, 172_800, 259_200]),
        (
            ["1970-01-01T00:00:05Z", "1970-01-01T02:00:06+02:00", "1970-01-01T00:00:07Z", "1970-01-01T00:01:00Z"],
            [5, 6, 7, 60],
        ),
        (["7", "8", " 9", "10"], [7, 8, 9, 10]),
        ([7.0, 8.0, 9.0, 10.0], [7, 8, 9, 10]),
        (pl.Series([0, 1, 2, 3]).cast(pl.Date), [0, 86_400, 172_800, 259_200]),
        (pl.Series([0, 1_000, 2_000, 3_000]).cast(pl.Datetime("ms", "Asia/Shanghai")), [0, 1, 2, 3]),
    ],
    ids=["dates", "iso", "text", "float", "Date", "Datetime"],
)
def test_forms_of_time(tmp_path: Path, times: list[object] | pl.Series, seconds: list[int]) -> None:
    parts = [pl.DataFrame({"user": [u] * 4, "item": [f"{u}{k}" for k in range(4)], "time": times}) for u in "xy"]
    pl.concat(parts).write_parquet(tmp_path / "log.parquet")
    log = EventLog(files=(str(tmp_path / "log.parquet"),), kind=LogKind.PARQUET)
    frame = rows(BehaviourDataset(log=log).open(tmp_path))
    assert frame["time"].unique().sort().to_list() == seconds[1:]


@pytest.mark.parametrize(
    ("change", "values", "message"),
    [
        (("user,item", "user,thing"), {}, r"log.csv: column\(s\) \['item'\] of the schema are missing.*'thing'"),
        (("category", "kind"), {}, r"column\(s\) \['category'\].*'kind'"),
        (("time", "when"), {}, r"column\(s\) \['time'\] of dataset.log are missing.*'when'"),
        ((",103", ",yesterday"), {}, r"row 3 .*column 'time': 'yesterday' is no time"),
        ((",103", ","), {}, r"row 3 .*column 'time': None is no time"),
        ((",103", ",1e2"), {}, r"row 3 .*'1e2' is no time"),
        (("a,i2", ",i2"), {}, r"row 3 .*column 'user': None names nobody"),
        (("a,i2", "a,"), {}, r"row 3 .*column 'item': None names nobody"),
        (("x", "x"), {"log_key_type": KeyType.INTEGER}, r"row 1 .*column 'user': 'b' is no signed 64-bit integer"),
        (("x", "x"), {"log_behaviour": "category", "log_behaviours": ("x",)}, r"no events whose 'category' is one of"),
        (("x", "x"), {"log_behaviour": "deed", "log_behaviours": ("buy",)}, r"column\(s\) \['deed'\] of dataset.log"),
        (("x", "x"), {"min_history": 4}, r"the train split has no event with 4 event\(s\) of its user before"),
        (("k", "i"), {}, r"user 'a' has met all of the 2 items that targets of a split"),
        (("x", "x"), {"split": replace(CHRONOLOGICAL, validation=0.01)}, r"so a split would be empty"),
        (("x", "x"), {"log_files": ("nowhere.csv",)}, r"nowhere.csv: no such file.*RECSYS_DATA"),
        (("x", "x"), {"side": SideFile(path="nowhere.json", attributes=("a",))}, r"nowhere.json: no such file"),
    ],
)  # fmt: skip
def test_bad_logs_are_refused(tmp_path: Path, change: tuple[str, str], values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"(?s){message}"):
        dataset_of(tmp_path, TEN.replace(*change), **values).open(tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("1600000000000", "2020-09-13", r"'2020-09-13' is no time, and the others of this log are whole numbers"),
        ("2020-09-13T10:00:00", "1600000000", r"'1600000000' is no time, and the others of this log are dates"),
    ],
)
def test_times_of_one_log_are_of_one_kind(tmp_path: Path, first: str, second: str, told: str) -> None:
    """Also where each file, or each piece of one that is read at once, has one kind alone."""
    for name, time in {"a": first, "b": second}.items():
        (tmp_path / f"{name}.csv").write_text(f"user,item,category,time\n{name},i1,c,{time}\n{name},i2,c,{time}\n")
    files = tuple(str(tmp_path / f"{name}.csv") for name in "ab")
    with pytest.raises(DataError, match=rf"b.csv, row 1 .*{told}"):
        dataset_of(tmp_path, log_files=files).open(tmp_path)


@pytest.mark.parametrize("name", ["user", "item"])
def test_the_integer_that_means_missing_is_nobody(tmp_path: Path, name: str) -> None:
    row = {"user": 1, "item": 2, name: MISSING_KEY}
    text = f"user,item,time\n1,5,1\n{row['user']},{row['item']},2\n"
    dataset = dataset_of(tmp_path, text, log_key_type=KeyType.INTEGER, log_attributes=())
    with pytest.raises(DataError, match=rf"row 2 .*column '{name}': {MISSING_KEY} names nobody"):
        dataset.open(tmp_path)


def test_times_whose_difference_overflows_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"row 3 .*'-{2**63}' is no time"):
        dataset_of(tmp_path, TEN.replace(",103", f",-{2**63}", 1)).open(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("side.json", "{", r"not JSON of the form"),
        ("side.json", '["i1"]', r"not JSON of the form"),
        ("side.json", '{"i1": 3}', r"not JSON of the form"),
        ("side.json", '{"i1": [3, "x"]}', r"not JSON of the form"),
        ("side.tsv", "item\tother\ni1\t1\n", r"column\(s\) \['price'\]"),
        ("side.tsv", "item\tprice\ni1\t1\ni1\t2\n", r"item 'i1' has more than one row"),
    ],
)
def test_bad_side_files_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name}: {message}"):
        dataset_of(tmp_path, side=SideFile(path=str(tmp_path / name), attributes=("price",))).open(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_length": 0}, r"dataset.max_length=0: must be 1"),
        ({"num_negatives": 0}, r"dataset.num_negatives=0: must be 1"),
        ({"log_files": ()}, r"dataset.log.files=\[\]"),
        ({"log_behaviour": "kind"}, r"dataset.log.behaviour='kind' with behaviours=\[\]"),
        ({"log_kind": LogKind.USERS}, r"dataset.log.kind=USERS with time='time'"),
        ({"log_time": "", "split": CHRONOLOGICAL}, r"CHRONOLOGICAL with dataset.log.time=''"),
        ({"log_attributes": ("time",)}, r"rows would have more than one column 'time'; .* Rename it"),
        ({"log_attributes": ("gap",)}, r"more than one column 'hist_gap'"),
        ({"log_attributes": ("hist_item",)}, r"more than one column 'hist_item'"),
        ({"log_item": "label"}, r"more than one column 'label'"),
    ],
)
def test_impossible_configs_are_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataset_of(tmp_path, **values)
    with pytest.raises(ConfigError, match=r"dataset.side.path=''"):
        SideFile(attributes=("a",))
    with pytest.raises(ConfigError, match=r"dataset.split.validation=0"):
        SplitTargets(validation=0)


@pytest.mark.parametrize(("log_time", "expected"), [("time", "c_early"), ("", "c_late")])
def test_attributes_are_those_of_the_earliest_event(log_time: str, expected: str, tmp_path: Path) -> None:
    """Of events at one time the file's first; without times the files' order is all that is known."""
    lines = ["user,item,category,time", "a,k,c_late,90", "b,k,c_early,7", "a,k,c_tie,7"]
    dataset = dataset_of(tmp_path, "\n".join(lines) + "\n", log_time=log_time)
    store = EventStore(Made(tmp_path, dataset, max_rejected=0), dataset.log)
    store.fill(Rejected(tmp_path, num_rows=3, limit=0), num_rows=3)
    assert store.items().rows() == [("k", expected)]
