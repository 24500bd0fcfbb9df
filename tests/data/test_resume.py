"""An ingest that is stopped anywhere goes on where it stopped, and ends with the bytes of one that was not."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data import behaviours, fitting, histories, passes
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.state import STATE_FOLDER, put_json
from recsys.data.table import TableDataset
from tests.data.behaviour_logs import dataset_of, random_log
from tests.data.conftest import small_frame
from tests.data.test_ingest import files_of

Build = Callable[..., TableDataset]
OPTIONS = IngestOptions(seed=3, rows_per_file=100, chunk_rows=32, max_rejected=0.1)
SHARDS = 5


class Stopped(BaseException):
    """Stands for a kill, which no code can catch."""


def with_faults() -> pl.DataFrame:
    return small_frame().with_columns(
        pl.when(pl.int_range(pl.len()) % 50 == 7).then(2).otherwise("label").alias("label")
    )


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let `count` shards be done, then stop; the list grows by what is done."""
    done: list[str] = []

    def put(path: Path, value: object) -> None:
        if len(done) == count:
            raise Stopped
        put_json(path, value)
        done.append(path.stem)

    monkeypatch.setattr(fitting, "put_json", put)
    monkeypatch.setattr(passes, "put_json", put)
    return done


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 9])
def test_stopped_after_any_shard(tmp_path: Path, dataset: Build, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    source = dataset(with_faults())
    whole = ingest(source, tmp_path / "whole", options=OPTIONS)
    assert whole.num_rejected == 10
    with monkeypatch.context() as context:
        stop_after(count, context)
        with pytest.raises(Stopped):
            ingest(source, tmp_path / "stopped", options=OPTIONS)
    again = stop_after(2 * SHARDS, monkeypatch)
    ingest(source, tmp_path / "stopped", options=OPTIONS)
    assert len(again) == 2 * SHARDS - count, "only what was not done is done"
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")
    assert not (tmp_path / "stopped" / STATE_FOLDER).exists()


def test_a_changed_input_begins_anew(tmp_path: Path, dataset: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        stop_after(7, context)
        with pytest.raises(Stopped):
            ingest(dataset(with_faults()), tmp_path / "stopped", options=OPTIONS)
    source = dataset(with_faults().with_columns(pl.col("number") + 1))
    with monkeypatch.context() as context:
        again = stop_after(2 * SHARDS, context)
        ingest(source, tmp_path / "stopped", options=OPTIONS)
    assert len(again) == 2 * SHARDS
    ingest(source, tmp_path / "whole", options=OPTIONS)
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")


def test_an_input_that_changes_between_the_passes(
    tmp_path: Path, dataset: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = dataset(with_faults())

    def put(path: Path, value: object) -> None:
        if path.stem == f"fit-{SHARDS - 1:06d}":
            dataset(with_faults().with_columns(pl.col("number") + 1))
        put_json(path, value)

    with monkeypatch.context() as context:
        context.setattr(fitting, "put_json", put)
        with pytest.raises(
            DataError, match=r"an input of data set 'table' changed while it was read. Run ingest again"
        ):
            ingest(source, tmp_path / "out", options=OPTIONS)
    ingest(source, tmp_path / "out", options=OPTIONS)
    ingest(source, tmp_path / "whole", options=OPTIONS)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


KILLED = """
import os, signal, sys
from pathlib import Path
from recsys.data import passes
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.state import put_json
from recsys.data.synthetic import SyntheticDataset

def put(path, value):
    put_json(path, value)
    if sys.argv[2:] and path.stem.endswith("2"):
        os.kill(os.getpid(), signal.SIGKILL)

passes.put_json = put
ingest(SyntheticDataset(num_rows=4000), Path(sys.argv[1]), options=IngestOptions(rows_per_file=1000))
"""


def test_kill_minus_nine_and_another_number_of_threads(tmp_path: Path) -> None:
    def run(name: str, *kill: str, threads: int) -> int:
        environment = {**os.environ, "POLARS_MAX_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-c", KILLED, str(tmp_path / name), *kill]
        return subprocess.run(command, env=environment, check=False, capture_output=True).returncode

    assert run("killed", "kill", threads=2) == -signal.SIGKILL
    assert len(list((tmp_path / "killed" / STATE_FOLDER).glob("encode-*.json"))) == 3
    assert run("killed", threads=1) == run("whole", threads=3) == 0
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_a_log_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, log = dataset_of(tmp_path, random_log(300, seed=5)), tmp_path / "log.csv"

    def split_codes(*arguments: object) -> object:
        log.write_text(log.read_text() + "u1,i1,999,c1\n")
        return histories.split_codes(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(behaviours, "split_codes", split_codes)
    with pytest.raises(DataError, match=r"an input of data set 'behaviours' changed while it was read\. Run"):
        ingest(source, tmp_path / "out", options=OPTIONS)
    monkeypatch.undo()
    ingest(source, tmp_path / "out", options=OPTIONS)
    ingest(source, tmp_path / "fresh", options=OPTIONS)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "fresh")


def test_rows_that_a_data_set_makes_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are there stay; one that a kill left half written, and those after it, are made."""
    events = random_log(900, seed=5, times=10_000)
    options = IngestOptions(max_rejected=0.1)
    monkeypatch.setattr(behaviours, "ROWS_PER_FILE", 128)
    source = dataset_of(tmp_path, events)
    ingest(source, tmp_path / "whole", options=options)
    raw, made = tmp_path / "parts" / "raw", list[object]()

    def rows_of(*arguments: object, max_length: int) -> pl.DataFrame:
        if len(made) == 5:
            raise Stopped
        made.append(arguments)
        return histories.rows_of(*arguments, max_length=max_length)  # type: ignore[arg-type]

    with monkeypatch.context() as context:
        context.setattr(behaviours, "rows_of", rows_of)
        with pytest.raises(Stopped):
            ingest(source, tmp_path / "parts", options=options)
    files = sorted(raw.glob("*.parquet"))
    assert len(files) == 5 and len(list((tmp_path / "whole" / "raw").glob("*.parquet"))) > 9
    (raw / "train-00000-00005.tmp").write_bytes(b"PAR1 half")
    before = [path.stat().st_mtime_ns for path in files]
    ingest(source, tmp_path / "parts", options=options)
    assert [path.stat().st_mtime_ns for path in files] == before
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")

    dataset_of(tmp_path, events.head(600))  # another log in its place
    ingest(source, tmp_path / "parts", options=options)
    ingest(source, tmp_path / "fresh", options=options)
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "fresh")
