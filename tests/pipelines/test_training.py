"""Training as a command: killed and taken up again, on two ranks, in bfloat16."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch

from pipelines import evaluate
from recsys.train import checkpoint
from tests.pipelines.world import SMALL, STAGES, call, command, do, environment, make_run

LONG = (*SMALL, "name=long", "train.epochs=3", "train.batch_size=64", "train.checkpoint_every=5", "model.dropout=0.1")


def weights(runs: Path, name: str, which: str) -> dict[str, torch.Tensor]:
    return checkpoint.read_tensors(runs / name / "train" / "checkpoints" / which, "")


def history(runs: Path, name: str) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = json.loads((runs / name / "train" / "history.json").read_text())
    return [{key: value for key, value in row.items() if key != "rows_per_second"} for row in rows]


def kill_during(runs: Path, seen: str, delay_seconds: float) -> None:
    """Start training; kill it `delay_seconds` after the file `seen` of its folder aside is there."""
    process = subprocess.Popen(
        command("train", runs, *LONG), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (runs / "long" / "train.partial" / seen).exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.002)
    time.sleep(delay_seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (runs / "long" / "train").exists()


def step_of(runs: Path) -> int:
    found = checkpoint.find(runs / "long" / "train.partial" / "checkpoints" / "last")
    return int(json.loads((found / checkpoint.STATE_NAME).read_text())["progress"]["step"]) if found is not None else 0


def test_kill_9_and_a_restart_give_the_weights_of_an_uninterrupted_run(runs: Path) -> None:
    do("train", runs, *LONG)
    (runs / "long" / "train").rename(runs / "whole")
    kill_during(runs, "plan.json", 0.0)  # before, or about, the first step
    kill_during(runs, "checkpoints/last/state.json", 0.05)
    first = step_of(runs)
    kill_during(runs, "checkpoints/best/state.json", 0.02)  # around the end of an epoch
    second = step_of(runs)
    result = call("train", runs, *LONG)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "going on with the interrupted run" in result.stderr and "resumed at epoch" in result.stderr
    assert 0 < first <= second < 3 * 38
    (runs / "whole").rename(runs / "long" / "whole")
    (runs / "uninterrupted").mkdir()
    (runs / "long" / "whole").rename(runs / "uninterrupted" / "train")
    for which in ("last", "best"):
        expected, got = weights(runs, "uninterrupted", which), weights(runs, "long", which)
        assert expected.keys() == got.keys() and len(got) > 10
        assert all(torch.equal(expected[key], got[key]) for key in expected)
    assert history(runs, "long") == history(runs, "uninterrupted")


def test_seconds_of_an_interrupted_run_count(runs: Path) -> None:
    kill_during(runs, "checkpoints/last/state.json", 0.0)
    state = runs / "long" / "train.partial" / "checkpoints" / "last" / checkpoint.STATE_NAME
    record = json.loads(state.read_text())
    assert record["progress"]["seconds"] < record["progress"]["total_seconds"] < 60
    record["progress"]["total_seconds"] = 1000.0
    state.write_text(json.dumps(record))
    result = call("train", runs, *LONG)
    assert result.returncode == 0, result.stderr[-3000:]
    metrics = json.loads((runs / "long" / "train" / "metrics.json").read_text())
    assert 1000 < metrics["train.seconds"] < 1060


RANKS = (
    *SMALL,
    "train.epochs=2",
    "train.batch_size=100",
    "train.eval_batch_size=78",
    "model.batch_norm=false",
    "model.dropout=0",
)


def with_scores(runs: Path, name: str, rows: Path) -> pl.DataFrame:
    """Scores of raw rows by the run's exported file."""
    run = do("predict", runs, *RANKS, f"name={name}", f"predict.input={rows}")
    return pl.read_parquet(run.stage("predict") / "scores.parquet")


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of `RANKS` on one process."""
    runs = tmp_path_factory.mktemp("ranks") / "runs"
    for stage in STAGES:
        do(stage, runs, *RANKS, "name=one")
    return runs


@pytest.mark.parametrize(("sharding", "stage"), [("table_wise", "train"), ("row_wise", "run")])
def test_two_ranks_equal_one_process(sharding: str, stage: str, one_process: Path, tmp_path: Path) -> None:
    runs = Path(shutil.copytree(one_process, tmp_path / "runs"))
    two = (*RANKS, "name=two", "train.run_on.num_processes=2", f"train.run_on.sharding={sharding}")
    result = call(stage, runs, *two)
    assert result.returncode == 0, result.stderr[-3000:]
    for one_row, two_row in zip(history(runs, "one"), history(runs, "two"), strict=True):
        assert two_row == pytest.approx(one_row, abs=1e-5)
    do("export", runs, *two)
    rows = make_run(runs, *RANKS).stage("ingest") / "raw_sample.parquet"
    one_scores, two_scores = with_scores(runs, "one", rows), with_scores(runs, "two", rows)
    assert float((one_scores["logit"] - two_scores["logit"]).abs().max()) < 1e-4  # type: ignore[arg-type]
    if stage == "run":  # evaluated by two ranks too
        one, both = (pl.read_parquet(runs / name / "evaluate" / "predictions.parquet") for name in ("one", "two"))
        assert both["__row__"].equals(one["__row__"]) and both["label"].equals(one["label"])
        assert float((both["logit"] - one["logit"]).abs().max()) < 1e-4  # type: ignore[arg-type]


def test_a_failing_rank_fails_the_command(runs: Path) -> None:
    result = call("train", runs, *SMALL, "name=bad", "train.run_on.num_processes=2", "embedding.budget_mib=0.001")
    assert result.returncode == 1
    assert result.stderr.count("above the budget of 1,048") == 1, "both ranks find this, one of them tells it"
    assert "error: pipelines.train failed on rank" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (runs / "bad" / "train").exists()


def test_bfloat16_learns_as_much(runs: Path) -> None:
    both = (*SMALL, "train.epochs=3", "train.optimizer.dense_learning_rate=0.003")
    aucs = {}
    for precision in ("float32", "bfloat16"):
        do("train", runs, *both, f"name={precision}", f"train.run_on.precision={precision}")
        aucs[precision] = max(row["validation_auc"] for row in history(runs, precision))
    assert aucs["bfloat16"] == pytest.approx(aucs["float32"], abs=0.01)
    assert aucs["float32"] > 0.55
    one, other = (weights(runs, precision, "best") for precision in aucs)
    assert any(not torch.equal(one[key], other[key]) for key in one if key.startswith("model.")), "it took effect"


def test_an_interrupted_run_goes_on_with_another_number_of_ranks_but_not_with_other_options(runs: Path) -> None:
    kill_during(runs, "checkpoints/last/state.json", 0.05)
    before = step_of(runs)
    refused = call("train", runs, *LONG, "train.optimizer.dense_learning_rate=0.5")
    assert refused.returncode == 1
    assert "holds an interrupted run of other options" in refused.stderr and "dense_learning_rate" in refused.stderr
    assert step_of(runs) == before
    result = call("train", runs, *LONG, "train.run_on.num_processes=2")
    assert result.returncode == 0, result.stderr[-3000:]
    assert "resumed at epoch" in result.stderr
    assert len(history(runs, "long")) == 3


def test_frozen_embeddings_are_evaluated_by_one_process(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other ranks would wait for its clustering until the process group gives up."""
    frozen = ("embedding=int4", "from=small", "train.run_on.num_threads=1")
    do("evaluate", runs, *SMALL, *frozen, "name=one")
    with monkeypatch.context() as patch:
        patch.delattr(evaluate, "relaunch")
        do("evaluate", runs, *SMALL, *frozen, "name=two", "train.run_on.num_processes=2")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = command("evaluate", runs, *SMALL, *frozen, "name=launched", "train.run_on.num_processes=2")[1:]
    launched = subprocess.run([*torchrun, *arguments], capture_output=True, text=True, env=environment(), check=False)
    assert launched.returncode == 0, launched.stderr[-3000:]
    one, *others = (
        pl.read_parquet(runs / name / "evaluate" / "predictions.parquet") for name in ("one", "two", "launched")
    )
    assert all(one.equals(other) for other in others), "also to the last bit: the same process scores the same batches"
