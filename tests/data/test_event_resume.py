"""Making rows of a log, killed anywhere, goes on and ends with the same bytes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys.data import behaviours, event_log, events
from recsys.data.histories import SplitTargets
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.made import put_frame
from tests.data.behaviour_logs import CHRONOLOGICAL, dataset_of, random_log, read_at_once
from tests.data.test_ingest import files_of


class Stopped(BaseException):
    """Stands for a kill, which no code can catch."""


def stop_at(rename: int, monkeypatch: pytest.MonkeyPatch, *, before: bool) -> None:
    """Stop before or after so many files have appeared below raw/, all of which are renamed when they are whole."""
    original: Callable[[Path, Path], Path] = Path.rename
    count = [0]

    def renamed(path: Path, target: Path) -> Path:
        if "raw" not in path.parts:
            return original(path, target)
        count[0] += 1
        if count[0] >= rename and before:
            raise Stopped
        found = original(path, target)
        if count[0] >= rename:
            raise Stopped
        return found

    monkeypatch.setattr(Path, "rename", renamed)


@pytest.mark.parametrize(("split", "before"), [(SplitTargets(), False), (CHRONOLOGICAL, True)])
def test_stopped_anywhere_it_ends_with_the_same_bytes(
    tmp_path: Path, split: SplitTargets, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every file that appears: counts, parts, buckets, items, targets, rows, the list of them."""
    read_at_once(130, monkeypatch)
    faulty = random_log(300, seed=7).with_columns(
        pl.when(pl.int_range(pl.len()) == 11).then(None).otherwise("item").alias("item")
    )
    dataset, stops = dataset_of(tmp_path, faulty, split=split), 0
    options = IngestOptions(max_rejected=0.1)
    assert ingest(dataset, tmp_path / "whole", options=options).num_rejected == 1
    whole = files_of(tmp_path / "whole")
    for rename in range(1, 100):
        folder = tmp_path / str(rename)
        with monkeypatch.context() as context:
            stop_at(rename, context, before=before)
            try:
                ingest(dataset, folder, options=options)
            except Stopped:
                stops += 1
        ingest(dataset, folder, options=options)
        assert files_of(folder) == whole, rename
        if stops < rename:
            break
    assert stops > 20


KILLED = """
import os, signal, sys
from pathlib import Path
from recsys.data import event_log, events, made
from recsys.data.behaviours import BehaviourDataset
from recsys.data.event_log import EventLog
from recsys.data.ingest import IngestOptions, ingest

events.EVENTS_AT_ONCE, event_log.CHUNK_ROWS = 130, 50
source, target, *kill = sys.argv[1:]
put_frame = made.put_frame

def put(path, frame, **options):
    if kill and path.name == kill[0]:
        path.with_suffix(".tmp").write_bytes(b"PAR1 half")
        os.kill(os.getpid(), signal.SIGKILL)
    put_frame(path, frame, **options)

made.put_frame = events.put_frame = put
dataset = BehaviourDataset(log=EventLog(files=(source,), attributes=("category",)))
ingest(dataset, Path(target), options=IngestOptions())
"""


def test_kill_minus_nine_in_every_phase_and_other_numbers_of_threads(tmp_path: Path) -> None:
    random_log(400, seed=7, times=5_000).write_csv(tmp_path / "log.csv")

    def run(name: str, *kill: str, threads: int) -> int:
        environment = {**os.environ, "POLARS_MAX_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-c", KILLED, str(tmp_path / "log.csv"), str(tmp_path / name), *kill]
        return subprocess.run(command, env=environment, check=False, capture_output=True).returncode

    for number, name in enumerate(("part-00001.parquet", "bucket-00002.parquet", "train-00001-00000.parquet")):
        assert run("killed", name, threads=1 + number % 2) == -signal.SIGKILL, name
    assert run("killed", threads=1) == run("whole", threads=3) == 0
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_buckets_of_an_interrupted_ingest_stay_what_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version may make them of another size, which must not lose or double users."""
    read_at_once(130, monkeypatch)
    dataset = dataset_of(tmp_path, random_log(300, seed=9))
    ingest(dataset, tmp_path / "whole", options=IngestOptions())
    with monkeypatch.context() as context:
        context.setattr(events, "put_frame", put_until_second_bucket)
        with pytest.raises(Stopped):
            ingest(dataset, tmp_path / "stopped", options=IngestOptions())
    monkeypatch.setattr(events, "EVENTS_AT_ONCE", 40)
    ingest(dataset, tmp_path / "stopped", options=IngestOptions())
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")


def put_until_second_bucket(path: Path, frame: pl.DataFrame, **options: int) -> None:
    put_frame(path, frame, **options)
    if path.name == "bucket-00001.parquet":
        raise Stopped


def test_after_the_rows_are_made_the_log_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = dataset_of(tmp_path, random_log(300, seed=8))
    table = dataset.open(tmp_path, max_rejected=0.1)
    for module in (event_log, events):
        monkeypatch.setattr(module, "event_frames", None)
    monkeypatch.setattr(event_log, "num_rows_of", None)
    monkeypatch.setattr(behaviours, "_Rows", None)
    assert dataset.open(tmp_path, max_rejected=0.1).files == table.files
    assert [name for name, _ in json.loads((tmp_path / "raw" / "files.json").read_text())]
