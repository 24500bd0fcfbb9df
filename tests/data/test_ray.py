"""Shards as tasks of a Ray cluster of two workers: the same bytes, the same limits, and a killed driver goes on."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import ConfigError
from recsys.data.dataset import Shard
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.joined import SideTable
from recsys.data.launch import Launcher, runs_of
from recsys.data.state import STATE_FOLDER
from tests.data.test_ingest import files_of
from tests.data.test_joined import SIDES, dataset, rows, sides, write

SCRIPT = """
import os, signal, sys
from pathlib import Path
import ray
from recsys.core.errors import DataError
from recsys.data import ingest as module
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.launch import Launcher, launched
from tests.data.test_joined import SIDES, dataset
from tests.data.test_ray import limited, source

def some(*arguments):
    for count, result in enumerate(launched(*arguments)):
        yield result
        if sys.argv[1] == str(count):
            os.kill(os.getpid(), signal.SIGKILL)

module.launched = some
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
ingest(source(), Path("rayed"), options=limited(0.1, Launcher.RAY))
try:
    ingest(source(), Path("refused"), options=limited(0.04, Launcher.RAY))
except DataError as error:
    print("refused:", error)
ray.shutdown()
"""


def limited(max_rejected: float, launcher: Launcher) -> IngestOptions:
    return IngestOptions(seed=3, rows_per_file=10, chunk_rows=7, max_rejected=max_rejected, launcher=launcher)


def source() -> object:
    """Of relative paths, with side tables, faults and two files."""
    side = tuple(SideTable(files=(f"{key}.csv",), key=key, columns=names) for key, names in SIDES)
    return dataset("rows-*.csv", side)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (`.[ray]`)")
def test_a_killed_driver_and_one_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(Path.cwd())
    monkeypatch.chdir(tmp_path)
    sides(tmp_path, ".csv")
    faulty = rows().with_columns(y=pl.when(pl.int_range(pl.len()) % 20 == 7).then(2).otherwise("y"))
    write(faulty.head(47), tmp_path / "rows-1.csv")
    write(faulty.tail(53), tmp_path / "rows-2.csv")
    environment = {**os.environ, "PYTHONPATH": root, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}

    def run(stop_after: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", SCRIPT, stop_after]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)

    killed = run("3")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert any((tmp_path / "rayed" / STATE_FOLDER).glob("fit-*.json"))
    done = run("")
    assert done.returncode == 0, done.stderr
    assert "encoding: 100/100 rows" in done.stderr
    ingest(source(), tmp_path / "serial", options=limited(0.1, Launcher.PROCESS))  # type: ignore[arg-type]
    assert files_of(tmp_path / "rayed") == files_of(tmp_path / "serial")
    assert "rows have faults so far, more than ingest.max_rejected=0.04 allows" in done.stdout


def test_ray_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    side = sides(tmp_path, ".csv")
    with pytest.raises(
        ConfigError, match=r"ingest.launcher=ray: Ray is not installed. Install it, `pip install .*\[ray\]'"
    ):
        ingest(dataset(write(rows(), tmp_path / "rows.csv"), side), tmp_path / "out", options=limited(0, Launcher.RAY))
    with pytest.raises(ConfigError, match=r"ingest.num_workers=-1: must be 0 or more"):
        IngestOptions(num_workers=-1)


def test_runs_are_of_consecutive_shards_of_one_file() -> None:
    def shard(number: int, file: int) -> Shard:
        return Shard(number=number, file=file, first_row=0, position=0, num_rows=1)

    left = [shard(n, f) for n, f in ((0, 0), (1, 0), (2, 0), (4, 0), (5, 1), (6, 1))]
    assert [[s.number for s in run] for run in runs_of(left, longest=2)] == [[0, 1], [2], [4], [5, 6]]
    assert [[s.number for s in run] for run in runs_of(left, longest=9)] == [[0, 1, 2], [4], [5, 6]]
    assert runs_of([], longest=1) == []
