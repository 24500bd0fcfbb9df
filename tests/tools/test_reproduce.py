"""The tool that makes a reproduction table: killed, taken up again, and honest about a model that fails."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from recsys.core.errors import StageError
from tools.fuxictr_setup import PeerPlace, PeerSettings
from tools.reproduce import Runner, Task, tasks
from tools.reproduce_models import FRAPPE
from tools.reproduce_progress import RunsProgress
from tools.reproduce_table import Side

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = (
    "dataset=synthetic",
    "dataset.num_rows=3000",
    "dataset.num_numeric=2",
    "dataset.num_categorical=3",
    "dataset.max_cardinality=100",
    "train.epochs=2",
    "train.batch_size=128",
    "train.run_on.num_threads=1",
)
MODELS = "lr,fm,finalmlp"  # the last gates by a column `user`, which these rows lack: it fails


def command(runs: Path) -> list[str]:
    words = ["--models", MODELS, "--seeds", "1,2", "--no-peer", "--jobs", "2", *TINY, f"runs={runs}"]
    return [sys.executable, "-m", "tools.reproduce_frappe", *words]


def finished(runs: Path) -> dict[Path, tuple[float, bytes]]:
    found = (path for path in runs.rglob("stage.json") if not path.parent.name.endswith(".partial"))
    return {path: (path.stat().st_mtime, path.read_bytes()) for path in found}


@pytest.fixture(scope="module")
def killed_and_ended(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[Path, tuple[float, bytes]], str, int]:
    """(runs, what was finished at the kill, standard error of the second process, its exit status)."""
    runs = tmp_path_factory.mktemp("reproduce") / "runs"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(runs), cwd=REPOSITORY, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 900
    while not any(runs.glob("reproduce/frappe/*/evaluate/stage.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = finished(runs)
    ended = subprocess.run(
        command(runs), cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    return runs, before, ended.stderr, ended.returncode


def test_a_killed_reproduction_goes_on_where_it_was(
    killed_and_ended: tuple[Path, dict[Path, tuple[float, bytes]], str, int],
) -> None:
    runs, before, _, _ = killed_and_ended
    after = finished(runs)
    assert before
    assert len(before) < len(after)
    assert {path: after[path] for path in before} == before  # nothing done was done again


def test_the_table_has_every_run_and_the_reason_of_the_failure(
    killed_and_ended: tuple[Path, dict[Path, tuple[float, bytes]], str, int],
) -> None:
    runs, _, said, status = killed_and_ended
    read = json.loads((runs / "reproduce/frappe/reproduction.json").read_text())
    assert {(run["model"], run["seed"]) for run in read["runs"]} == {(m, s) for m in ("lr", "fm") for s in (1, 2)}
    assert [failure["model"] for failure in read["failures"]] == ["finalmlp", "finalmlp"]
    assert "'user' is no categorical column" in read["failures"][0]["message"]
    text = (runs / "reproduce/frappe/reproduction.md").read_text()
    assert "| FinalMLP (failed: recsys) |" in text
    assert "'user' is no categorical column" in text
    assert status == 1
    assert "reproduce: 6/6" in said
    assert "min left, " in said


def test_an_unknown_model_is_refused() -> None:
    words = [sys.executable, "-m", "tools.reproduce_criteo", "--models", "dcnv3"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "['dcnv3']: no such model here" in done.stderr


def test_tasks_come_ours_first_then_the_peers_by_seed() -> None:
    rows = [row for row in FRAPPE.rows if row.name in ("fm", "fwfm")]
    names = [(task.side, task.seed, task.row.name) for task in tasks(rows, [1, 2], peer=True)]
    ours, peer = Side.OURS, Side.PEER
    assert names[:4] == [(ours, 1, "fm"), (ours, 1, "fwfm"), (ours, 2, "fm"), (ours, 2, "fwfm")]
    assert names[4:] == [(peer, 1, "fm"), (peer, 2, "fm")]
    assert len(tasks(rows, [1], peer=False)) == 2


SETTINGS = PeerSettings(
    zoo_file="FM/src/FM.py",
    model="FM",
    arguments={"embedding_dim": 10},
    numeric=[],
    categorical=["user"],
    numeric_treatment="log",
    embedding_dim=10,
)


def test_a_peers_record_is_kept_while_its_settings_hold(tmp_path: Path) -> None:
    runner = Runner(FRAPPE, [f"runs={tmp_path}"])
    row = next(row for row in FRAPPE.rows if row.name == "fm")
    task = Task(row=row, side=Side.PEER, seed=7)
    record = {
        "settings": asdict(SETTINGS),
        "validation_auc": 0.97,
        "test_auc": 0.967,
        "test_log_loss": 0.2,
        "num_parameters": 59_290,
        "num_epochs": 3,
        "epoch_seconds": [1.0, 2.0, 3.0],
    }
    path = tmp_path / "reproduce/frappe/fuxictr/fm_seed7.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))
    broken = PeerPlace(python=Path(sys.executable), zoo=tmp_path, split=tmp_path, work=tmp_path)
    result = runner.peer(task, broken, SETTINGS)
    assert (result.model, result.seed, result.test_auc, result.seconds) == ("fm", 7, 0.967, 6.0)
    with pytest.raises(StageError, match=r"fuxictr_peer\.py"):  # no FuxiCTR in this interpreter
        runner.peer(task, broken, replace(SETTINGS, max_epochs=1))


def test_time_left_goes_by_what_each_kind_took(capsys: pytest.CaptureFixture[str]) -> None:
    with RunsProgress(["a", "b", "a", "c"], jobs=2) as progress:
        assert progress.left() == ""
        progress.done("a", "a seed 1", "well", 600.0)
        assert progress.left() == "about 15 min left, "  # three of 600 s, two at once
        progress.done("b", "b seed 1", "failed", None)
        progress.done("c", "c seed 1", "well", 60.0)
        assert progress.left() == "about 5 min left, "
    assert "reproduce: 2/4, about 10 min left, b seed 1: failed" in capsys.readouterr().err
