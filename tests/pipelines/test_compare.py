"""Two trained runs compared from end to end, and what the command refuses before it compares anything."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from pipelines import compare
from pipelines.config import Run
from recsys.core.errors import ConfigError, DataError, StageError
from tests.pipelines.world import SMALL, command_line, contents, do, finished, make_run


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two seeds of two models, evaluated; the first is exported too. Do not write into it."""
    runs = tmp_path_factory.mktemp("compare") / "runs"
    for model in ("dcnv2", "lr"):
        for seed in (1, 2):
            options = SMALL if model == "dcnv2" else tuple(o for o in SMALL if not o.startswith("model"))
            name = (f"model={model}", f"seed={seed}", f"name=t/{model}_seed{seed}", "evaluate.frequency_slices=[C1]")
            stages = ("ingest", "train", "evaluate", *(("export",) if (model, seed) == ("dcnv2", 1) else ()))
            for each in stages:
                do(each, runs, *options, *name)
    return runs


@pytest.fixture
def runs(compared: Path, tmp_path: Path) -> Path:
    """A copy of `compared`."""
    return Path(shutil.copytree(compared, tmp_path / "runs"))


def options(*names: str, more: tuple[str, ...] = ()) -> tuple[str, ...]:
    return (f"compare.runs=[{','.join(names)}]", "compare.num_replicates=50", "name=c", *more)


def work(runs: Path, *overrides: str) -> Run:
    run = make_run(runs, *overrides)
    compare.work(run)
    return run


def metric(run: Run, name: str) -> float:
    return float(json.loads((run.folder.parent / name / "evaluate" / "metrics.json").read_text())["auc"])


def test_two_runs_end_to_end(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = work(runs, *options("t/dcnv2_seed1", "t/lr_seed1"))
    folder = runs / "compare" / "c"
    assert sorted(path.name for path in folder.iterdir()) == [
        "compare.html",
        "compare.json",
        "compare.md",
        "stage.json",
    ]
    found = json.loads((folder / "compare.json").read_text())
    first = found["overall"][0]
    assert first["metric"] == "auc" and first["num_rows"] == 300 == found["num_rows"]
    assert first["baseline_values"]["mean"]["value"] == pytest.approx(metric(run, "t/dcnv2_seed1"), abs=1e-12)
    assert first["candidate_values"]["mean"]["value"] == pytest.approx(metric(run, "t/lr_seed1"), abs=1e-12)
    assert first["standard_error"]["value"] > 0 and 0 <= first["p_value"]["value"] <= 1
    assert {d["column"] for d in found["slices"]} == {"frequency of C1"}, "as the runs were evaluated"
    assert {d["value"].split(":")[0] for d in found["slices"]} >= {"head"}
    costs = {cost["method"]: cost for cost in found["costs"]}
    exported = json.loads((runs / "t/dcnv2_seed1/export/manifest.json").read_text())["models"]["float32"]
    assert costs["t/dcnv2_seed1"]["file_bytes"] == exported["file_bytes"] > 0
    assert costs["t/dcnv2_seed1"]["embedding_bytes"] == exported["plan_bytes"] > costs["t/lr_seed1"]["embedding_bytes"]
    assert costs["t/lr_seed1"]["file_bytes"] is None and costs["t/lr_seed1"]["train_rows_per_second"] > 0
    printed = capsys.readouterr().out
    assert all(sentence in printed for sentence in found["verdicts"]["t/lr_seed1"])
    assert "one run of each says nothing of how another seed would turn out" in printed and "compare.html" in printed


def test_a_second_call_changes_nothing_and_another_seed_is_another_result(runs: Path) -> None:
    work(runs, *options("t/dcnv2_seed1", "t/lr_seed1"))
    before = contents(runs)
    work(runs, *options("t/dcnv2_seed1", "t/lr_seed1"))
    assert contents(runs) == before
    with pytest.raises(StageError, match=r"holds another result \(compare.seed is 1 there, 2 here\)"):
        work(runs, *options("t/dcnv2_seed1", "t/lr_seed1", more=("compare.seed=2",)))
    # What no result could have is told before what stands in the way of it.
    for more, words in (("compare.slices=[hour]", "no column 'hour'"), ("compare.group_key=user", "no such column")):
        with pytest.raises((ConfigError, DataError), match=words):
            work(runs, *options("t/dcnv2_seed1", "t/lr_seed1", more=(more,)))
    assert contents(runs) == before


def test_seeds_are_one_method(runs: Path) -> None:
    names = ("t/dcnv2_seed1", "t/dcnv2_seed2", "t/lr_seed1", "t/lr_seed2")
    run = work(runs, *options(*names, more=("compare.group_seeds=true", "compare.measure_latency=false")))
    found = json.loads((runs / "compare/c/compare.json").read_text())
    assert found["notes"] == []
    assert found["baseline"] == {"name": "t/dcnv2", "runs": ["t/dcnv2_seed1", "t/dcnv2_seed2"]}
    first = found["overall"][0]
    aucs = [metric(run, name) for name in names]
    assert first["difference"]["value"] == pytest.approx(sum(aucs[2:]) / 2 - sum(aucs[:2]) / 2, abs=1e-12)
    wide = ((aucs[0] - aucs[1]) ** 2 / 4 + (aucs[2] - aucs[3]) ** 2 / 4) ** 0.5  # each variance d^2 / 2, over 2 seeds
    assert first["seed_error"]["value"] == pytest.approx(wide)
    assert first["standard_error"]["value"] == pytest.approx((wide**2 + first["row_error"]["value"] ** 2) ** 0.5)
    assert "Runs by method" in (runs / "compare/c/compare.html").read_text()
    assert {cost["file_bytes"] for cost in found["costs"]} == {None}, "one of two seeds was exported"


def test_seeds_taken_for_methods_are_noted(runs: Path) -> None:
    work(runs, *options("t/dcnv2_seed1", "t/dcnv2_seed2", "t/lr_seed1"))
    (note,) = json.loads((runs / "compare/c/compare.json").read_text())["notes"]
    assert "t/dcnv2_seed1 and t/dcnv2_seed2. compare.group_seeds=true makes one method" in note


def test_latency_is_measured_where_there_is_a_bundle(runs: Path) -> None:
    work(runs, *options("t/dcnv2_seed1", "t/lr_seed1", more=("compare.measure_latency=true",)))
    costs = json.loads((runs / "compare/c/compare.json").read_text())["costs"]
    assert costs[0]["latency_ms"] > 0 and costs[1]["latency_ms"] is None


def test_a_missing_run_is_named_with_those_that_there_are(runs: Path) -> None:
    with pytest.raises(StageError, match=r"runs/t/lr_seed3 does not exist.*'t/lr_seed1'"):
        work(runs, *options("t/dcnv2_seed1", "t/lr_seed3"))
    shutil.rmtree(runs / "t/lr_seed1/evaluate")
    with pytest.raises(StageError, match=r"t/lr_seed1 was not evaluated\. Run `python -m pipelines.evaluate`"):
        work(runs, *options("t/dcnv2_seed1", "t/lr_seed1"))
    assert not (runs / "compare").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), r"compare.runs=\[\]: a comparison needs two runs"),
        (("compare.runs=[t/lr_seed1]",), "a comparison needs two runs"),
        (("compare.runs=[t/lr_seed1,t/lr_seed1]",), "stand there twice"),
        (("compare.runs=[t/lr_seed1,t/lr_seed2]", "compare.group_seeds=true"), "one method alone, nothing to compare"),
        (("compare.runs=[t/lr_seed1,t/lr_seed2]", "compare.metric=GAUC"), "needs groups. Set compare.group_key"),
        (("compare.runs=[t/lr_seed1,t/lr_seed2]", "compare.slices=[hour]"), "no column 'hour' beside the predictions"),
        (("+compare.margin.aucc=0.1",), "margin.aucc=0.1: no such metric"),
        (("compare.margin.auc=-1",), "must be 0 or more"),
        (("compare.level=95",), "level=95.0: must be in"),
        (("compare.num_replicates=1",), "num_replicates=1: must be 20 or more"),
    ],
)
def test_impossible_options(overrides: tuple[str, ...], message: str, compared: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        work(compared, "name=c", *overrides)
    assert not (compared / "compare" / "c").exists()


def test_an_unknown_group_is_refused(compared: Path) -> None:
    with pytest.raises(DataError, match=r"compare.group_key='user': no such column beside the predictions"):
        work(compared, *options("t/lr_seed1", "t/lr_seed2", more=("compare.group_key=user",)))
    assert not (compared / "compare" / "c").exists()


def test_other_data_is_refused_with_what_differs(runs: Path) -> None:
    other = (*SMALL, "dataset.num_rows=2000", "name=t/other", "seed=1")
    for each in ("ingest", "train", "evaluate"):
        do(each, runs, *other)
    with pytest.raises(StageError, match=r"other data \(dataset.num_rows: 3000 against 2000\).*across_ingests=true"):
        work(runs, *options("t/dcnv2_seed1", "t/other"))
    with pytest.raises(StageError, match=r"dataset.num_rows: 3000 against 2000 may decide which rows there are"):
        work(runs, *options("t/dcnv2_seed1", "t/other", more=("compare.across_ingests=true",)))
    assert not (runs / "compare" / "c").exists()


def test_data_encoded_otherwise_is_taken_when_asked(runs: Path) -> None:
    """As a run whose schema has fewer features; here, whose files were cut otherwise."""
    other = (*SMALL, "ingest.rows_per_file=1000", "name=t/other", "seed=1")
    for each in ("ingest", "train", "evaluate"):
        do(each, runs, *other)
    with pytest.raises(StageError, match=r"ingest.rows_per_file: 131072 against 1000"):
        work(runs, *options("t/dcnv2_seed1", "t/other"))
    work(runs, *options("t/dcnv2_seed1", "t/other", more=("compare.across_ingests=true",)))
    found = json.loads((runs / "compare/c/compare.json").read_text())
    assert found["notes"] == [
        "Encoded otherwise than the baseline's data, from the same raw files, rows and labels: t/other."
    ]


def test_scores_of_an_older_training_are_refused(runs: Path) -> None:
    options_of_run = tuple(o for o in SMALL if not o.startswith("model"))
    do("train", runs, *options_of_run, "model=lr", "name=t/lr_seed1", "seed=1", "train.epochs=2", "overwrite=true")
    with pytest.raises(StageError, match=r"holds the scores of another training.*Evaluate the run again"):
        work(runs, *options("t/dcnv2_seed1", "t/lr_seed1"))


def test_group_and_slices_come_from_the_runs(runs: Path) -> None:
    """A column that stands beside the predictions; the two runs agree on it in their records."""
    for name in ("t/dcnv2_seed1", "t/lr_seed1"):
        path = runs / name / "evaluate"
        frame = pl.read_parquet(path / "predictions.parquet")
        frame = frame.with_columns(user=pl.col("__row__") % 40, day=pl.col("__row__") % 2)
        frame.write_parquet(path / "predictions.parquet")
        record = json.loads((path / "stage.json").read_text())
        record["config"]["evaluate"] |= {"group_key": "user", "slices": ["day"], "gauc_weight": "CLICKS"}
        (path / "stage.json").write_text(json.dumps(record))
    work(runs, *options("t/dcnv2_seed1", "t/lr_seed1"))
    found = json.loads((runs / "compare/c/compare.json").read_text())
    assert found["group_key"] == "user" and found["num_clusters"] == 40
    assert {d["column"]: d["value"] for d in found["slices"] if d["column"] == "day"} == {"day": "1"}
    assert found["facts"]["GAUC weights"] == "clicks"
    assert "gauc" in {d["metric"] for d in found["overall"]}
    with pytest.raises(ConfigError, match=r"compare.group_key is not set, and the runs were evaluated with different"):
        work(runs, *options("t/dcnv2_seed1", "t/lr_seed2"))
    work(
        runs,
        *options(
            "t/dcnv2_seed1",
            "t/lr_seed2",
            more=("compare.group_key=''", "compare.slices=[]", "compare.gauc_weight=equal", "name=d"),
        ),
    )
    assert json.loads((runs / "compare/d/compare.json").read_text())["num_clusters"] == 300


def test_command_line_names_the_folder_and_refuses_what_it_would_ignore(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("compare.runs=[t/dcnv2_seed1,t/lr_seed1]", "compare.num_replicates=20")
    assert command_line("compare", runs, *chosen, "model=lr") == 1
    assert "error: model=lr: runs are compared as they were trained and evaluated" in capsys.readouterr().err
    assert command_line("compare", runs, *chosen, "evaluate.min_slice_rows=50", "compare.margin={auc: 0.01}") == 0
    assert Path("compare/t-dcnv2_seed1_vs_t-lr_seed1") in finished(runs)


def test_what_stopped_leaves_nothing_that_looks_finished(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise DataError("as if")

    monkeypatch.setattr(compare, "write_comparison", broken)
    with pytest.raises(DataError, match="as if"):
        work(runs, *options("t/dcnv2_seed1", "t/lr_seed1"))
    assert not [path for path in (runs / "compare").rglob("*") if path.is_file()]
