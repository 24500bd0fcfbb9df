"""Events with faults are left out up to a limit and listed, as rows are; what is made of the others does not change."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.core.manifest import Manifest
from recsys.core.schema import KeyType
from recsys.data.event_log import LogKind
from recsys.data.ingest import IngestOptions, ingest
from tests.data.behaviour_logs import dataset_of, random_log, rows

SOUND = random_log(200, seed=5)
TEXTS = [",".join(map(str, row)) for row in SOUND.rows()]
FAULTY = {9: "u1,,3,c1", 20: "u1,i2,soon,c1", 40: "u1,i2", 41: ",i2,3,c1", 100: "u1,i\udcff,3,c1"}
REASONS = {
    10: ("item", None, "names nobody and nothing"),
    21: ("time", "soon", "is no time"),
    41: ("", "u1,i2", "2 value.s., expected 4"),
    42: ("user", None, "names nobody and nothing"),
    101: ("", "u1,i\ufffd,3,c1", "byte 0xff is not UTF-8"),
}


def options(max_rejected: float) -> IngestOptions:
    return IngestOptions(seed=3, max_rejected=max_rejected)


def log_of(lines: list[str], path: Path) -> Path:
    path.write_bytes("\n".join([",".join(SOUND.columns), *lines, ""]).encode(errors="surrogateescape"))
    return path


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def damaged() -> list[str]:
    """The sound lines with faulty ones between them."""
    lines = list(TEXTS)
    for place, line in FAULTY.items():
        lines.insert(place, line)
    return lines


def test_faulty_events_are_listed_and_the_others_kept(tmp_path: Path) -> None:
    file = log_of(damaged(), tmp_path / "damaged.csv")
    ingest(dataset_of(tmp_path, log_files=(str(file),)), tmp_path / "out", options=options(0.1))
    rejected = pl.read_parquet(tmp_path / "out" / "rejected" / "*.parquet")
    assert rejected.columns == ["file", "row", "column", "value", "reason"]
    assert rejected["file"].unique().to_list() == [str(file)] and rejected["row"].to_list() == list(REASONS)
    for row, (column, value, reason) in zip(rejected.to_dicts(), REASONS.values(), strict=True):
        assert (row["column"], row["value"]) == (column, value)
        assert pl.Series([row["reason"]]).str.contains(reason).all()
    assert Manifest.read(tmp_path / "out").num_rejected == 5
    sound = rows(dataset_of(tmp_path, SOUND).open(tmp_path / "sound"))
    assert rows(dataset_of(tmp_path, log_files=(str(file),)).open(tmp_path / "kept", max_rejected=0.1)).equals(sound)


def test_too_many_are_refused_with_what_they_are_like(tmp_path: Path) -> None:
    file = log_of(damaged(), tmp_path / "damaged.csv")
    source = dataset_of(tmp_path, log_files=(str(file),))
    told = r"5 of 205 rows have faults so far, more than ingest.max_rejected=0.01 allows: .*damaged.csv, row 10, column"
    with pytest.raises(DataError, match=told):
        ingest(source, tmp_path / "out", options=options(0.01))
    assert pl.read_parquet(tmp_path / "out" / "rejected" / "*.parquet").height == 5
    with pytest.raises(DataError, match=r"damaged.csv, line 42: 2 value"):
        ingest(source, tmp_path / "strict", options=options(0))


def test_an_interrupted_ingest_lists_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = log_of(damaged(), tmp_path / "damaged.csv")
    source = dataset_of(tmp_path, log_files=(str(file),))
    monkeypatch.setattr("recsys.data.ingest._Run.encode", killed)
    with pytest.raises(KeyboardInterrupt):
        ingest(source, tmp_path / "out", options=options(0.1))
    monkeypatch.undo()
    assert ingest(source, tmp_path / "out", options=options(0.1)).num_rejected == 5
    assert pl.read_parquet(tmp_path / "out" / "rejected" / "*.parquet").height == 5


EVENTS = [json.dumps(dict(zip(SOUND.columns, row, strict=True))) for row in SOUND.rows()]
FORMS: dict[LogKind, tuple[list[str], dict[str, Any]]] = {
    LogKind.JSONL: ([*EVENTS[:7], '{"user": 1,', *EVENTS[7:]], {}),
    LogKind.USERS: (
        [*(f"{u} {' '.join(str(100 * u + i) for i in range(9))}" for u in range(7)), "x 1 2 3", "8 1 2 3 4"],
        {"log_time": "", "log_attributes": (), "log_separator": " ", "log_key_type": KeyType.INTEGER},
    ),
}


@pytest.mark.parametrize("user", ["", "  "])
def test_a_line_that_begins_with_its_separator_names_nobody(tmp_path: Path, user: str) -> None:
    (tmp_path / "log").write_text(f"u1\tA\tB\tC\t\n{user}\tA\tB\nu2\tB\tC\tD\n")
    values: dict[str, Any] = {"log_time": "", "log_attributes": (), "log_separator": "\t"}
    source = dataset_of(tmp_path, log_kind=LogKind.USERS, log_files=(str(tmp_path / "log"),), **values)
    with pytest.raises(DataError, match=r"log, row 2 .* names nobody"):
        ingest(source, tmp_path / "strict", options=options(0))


def test_an_item_of_spaces_in_a_users_line_is_told(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("u1\tA\tB\tC\tJ\nu2\tB\t \tC\tD\nu3\tE\tF\tG\tK\nu4\tB\tH\tI\tL\n")
    values: dict[str, Any] = {"log_time": "", "log_attributes": (), "log_separator": "\t"}
    source = dataset_of(tmp_path, log_kind=LogKind.USERS, log_files=(str(tmp_path / "log"),), **values)
    with pytest.raises(DataError, match=r"log, row 2 .*column 'item': \['B', ' ', 'C', 'D'\] has an item of spaces"):
        ingest(source, tmp_path / "strict", options=options(0))
    ingest(source, tmp_path / "out", options=options(0.4))
    assert pl.read_parquet(tmp_path / "out" / "rejected" / "*.parquet")["row"].to_list() == [2]


@pytest.mark.parametrize("kind", FORMS)
def test_logs_of_other_forms(tmp_path: Path, kind: LogKind) -> None:
    lines, values = FORMS[kind]
    (tmp_path / "log").write_text("\n".join(lines) + "\n")
    source = dataset_of(tmp_path, log_kind=kind, log_files=(str(tmp_path / "log"),), **values)
    assert ingest(source, tmp_path / "out", options=options(0.2)).num_rejected == 1
    assert pl.read_parquet(tmp_path / "out" / "rejected" / "*.parquet")["row"].to_list() == [8]
    with pytest.raises(DataError, match=r"log, (line|row) 8"):
        ingest(source, tmp_path / "strict", options=options(0))
