"""A trained run compressed without training again: the same weights, another way to serve them, and what it costs."""

import json
import shutil
from pathlib import Path

import pytest

from pipelines import compress
from pipelines.config import Run
from recsys.core.errors import ConfigError, StageError
from recsys.export.manifest import BundleManifest
from recsys.export.parity import Parity
from tests.pipelines.world import SMALL, call, command_line, contents, do, make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one trained run of full tables, `small`."""
    folder = tmp_path_factory.mktemp("runs")
    for stage in ("ingest", "train"):
        do(stage, folder, *SMALL, "embedding=full")
    return folder


def compressed(runs: Path, *overrides: str) -> Run:
    return make_run(runs, "from=small", *overrides)


def test_options_of_data_and_model_are_those_of_the_trained_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command names neither data set nor model, and evaluates the trained run too, which had only been trained."""
    run = compressed(runs, "embedding=int8", "name=narrow", "export.num_parity_rows=300", "export.num_golden_rows=50")
    compress.work(run)
    manifest = BundleManifest.read(runs / "narrow" / "export")
    assert {table.row_type.value for table in manifest.models["float32"].plan.tables} == {"int8"}
    assert not (runs / "narrow" / "train").exists()
    figures = [
        json.loads((runs / name / "evaluate" / "metrics.json").read_text())["auc"] for name in ("small", "narrow")
    ]
    assert figures[0] == pytest.approx(figures[1], abs=5e-3) and figures[0] != figures[1]
    printed = capsys.readouterr().out
    assert (
        f"{figures[0]:.5f}" in printed
        and f"{figures[1]:.5f}" in printed
        and f"{figures[1] - figures[0]:+.5f}" in printed
    )


def test_a_second_call_changes_nothing(runs: Path) -> None:
    options = ("embedding=int4", "name=again", "export.num_parity_rows=300", "export.num_golden_rows=50")
    compress.work(compressed(runs, *options))
    model = runs / "again" / "export" / "model.pt"
    before = model.stat().st_mtime_ns
    compress.work(compressed(runs, *options))
    assert model.stat().st_mtime_ns == before


def test_a_method_with_tables_of_its_own_is_refused(runs: Path) -> None:
    with pytest.raises(ConfigError, match=r"from=small: embedding=hash trains tables of its own .* pipelines.run"):
        compress.work(compressed(runs, "embedding=hash", "embedding.compression_ratio=3", "name=no"))
    assert not (runs / "no").exists()


def test_without_a_trained_run_it_says_how_to_name_one(runs: Path) -> None:
    with pytest.raises(ConfigError, match="from= is missing"):
        compress.work(make_run(runs, "embedding=int8"))
    with pytest.raises(StageError, match=r"from=nowhere: no such run below .*Trained are \[.*'small'.*\]\."):
        compress.work(make_run(runs, "from=nowhere", "embedding=int8"))


def test_a_run_of_two_ranks_keeps_its_evaluation(runs: Path, tmp_path: Path) -> None:
    """Its ranks get the trained run's options, not those of the command that compresses it."""
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    do("evaluate", tmp_path, *SMALL, "embedding=full")
    path = tmp_path / "small" / "train" / "stage.json"
    record = json.loads(path.read_text())
    record["resolved"]["train"]["run_on"]["num_processes"] = 2
    path.write_text(json.dumps(record))
    before = contents(tmp_path / "small" / "evaluate")
    golden = ("export.num_parity_rows=300", "export.num_golden_rows=50")
    result = call("compress", tmp_path, "from=small", "embedding=int4", "name=narrow", "overwrite=true", *golden)
    assert result.returncode == 0, result.stderr[-3000:]
    assert contents(tmp_path / "small" / "evaluate") == before
    trained, narrow = (
        json.loads((tmp_path / name / "evaluate" / "metrics.json").read_text())["auc"] for name in ("small", "narrow")
    )
    assert trained != narrow and f"{narrow - trained:+.5f}" in result.stdout


REFUSED = {
    "model": ("model=deepfm",),
    "dataset": ("dataset.num_rows=77",),
    "train": ("train.batch_size=7",),
    "seed": ("seed=5",),
    "ingest": ("ingest.seed=5",),
    "predict": ("predict.batch_size=7",),
    "experiment": ("experiment=demo",),
}


@pytest.mark.parametrize("key", REFUSED)
def test_options_that_are_the_trained_runs_are_refused(
    key: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line("compress", runs, "from=small", "embedding=int8", "name=no", *REFUSED[key]) == 1
    told = capsys.readouterr().err
    assert f"error: {REFUSED[key][-1]}: " in told and "is the trained run's (from=small)" in told, told
    assert not (runs / "no").exists()


def test_what_changes_nothing_is_taken_and_evaluate_is_this_commands(runs: Path) -> None:
    """The page of a sweep prints commands with all the options of a cell, which are the trained run's."""
    same = (*SMALL, "seed=1", "evaluate.num_bins=7", "name=binned")
    assert command_line("compress", runs, "from=small", "embedding=int8", *same) == 0
    record = json.loads((runs / "binned" / "evaluate" / "stage.json").read_text())
    assert record["config"]["evaluate"]["num_bins"] == 7


def test_export_says_what_freezing_cost(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ("embedding=int2", "name=coarse", "export.num_parity_rows=300", "export.num_golden_rows=50")
    with caplog.at_level("INFO", logger="pipelines.export"):
        compress.work(compressed(runs, *options))
    parity = Parity.read(runs / "coarse" / "export")
    assert parity.trained_auc is not None and parity.frozen_auc is not None
    (line,) = (line for line in caplog.messages if line.startswith("frozen: AUC"))
    assert f"{parity.frozen_auc:.5f}" in line and f"{parity.trained_auc:.5f}" in line and "300 rows" in line
