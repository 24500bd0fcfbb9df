"""A sweep of methods, budgets and seeds: killed, taken up again, and told on one page."""

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines import pareto
from pipelines.pareto_cells import PlannedBudget, base_overrides, compose_run, plan_budget, without_repeats
from pipelines.pareto_config import ParetoConfig
from pipelines.pareto_facts import commits
from pipelines.pareto_worker import Worker
from recsys.core.errors import ConfigError
from recsys.core.manifest import Manifest
from recsys.evaluate.pareto import Refusal
from tests.pipelines.world import SMALL, call, command, environment, make_run

SWEEP = (
    "experiment=pareto/synthetic",
    *(text for text in SMALL if not text.startswith(("name=", "dataset=", "model="))),
    "model.embedding_dim=8",
    "dataset.min_count=1",
    "name=small",
    "dataset.zipf_exponent=1.5",
    "pareto.methods=[full,int8,hash,broken]",
    "pareto.ratios=[1,8]",
    "pareto.seeds=[1,2]",
    "pareto.learning_rates=[0.02,0.1]",
    "+pareto.overrides.broken={embedding:hash,train.optimizer.dense_learning_rate:1e30}",
)
POINTS = {("full", 1.0), ("int8", 1.0), ("hash", 1.0), ("hash", 8.0)}


@dataclass(frozen=True)
class Swept:
    runs: Path
    before: dict[Path, tuple[float, bytes]]  # records of finished stages when the sweep was killed
    ended: subprocess.CompletedProcess[str]

    @property
    def folder(self) -> Path:
        return self.runs / "small"

    def numbers(self) -> dict[str, list[dict[str, object]]]:
        found: dict[str, list[dict[str, object]]] = json.loads((self.folder / "pareto.json").read_text())
        return found


def records(folder: Path) -> dict[Path, tuple[float, bytes]]:
    found = (path for path in folder.rglob("stage.json") if not path.parent.name.endswith(".partial"))
    return {path: (path.stat().st_mtime, path.read_bytes()) for path in found}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """A sweep that was killed with some cells done, and started again with the same command."""
    runs = tmp_path_factory.mktemp("sweep") / "runs"
    first = subprocess.Popen(command("pareto", runs, *SWEEP), env=environment(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while len(list(runs.glob("small/cells/*/*/export/stage.json"))) < 2:
        assert first.poll() is None and time.monotonic() < deadline, first.communicate()[1]
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    before = records(runs)
    return Swept(runs, before, call("pareto", runs, *SWEEP))


@pytest.mark.slow
def test_finished_cells_are_not_repeated(swept: Swept) -> None:
    assert len(swept.before) > 4, "ingest, and both trials of two cells, were done"
    after = records(swept.runs)
    assert {path: after[path] for path in swept.before} == swept.before
    assert len(after) > len(swept.before)
    assert re.search(r"sweep: 1/24 .*full/1x_lr0.02_seed1", swept.ended.stderr) and " left, " in swept.ended.stderr


@pytest.mark.slow
def test_every_cell_that_can_be_done_is_done(swept: Swept) -> None:
    numbers = swept.numbers()
    cells = [(r["cell"]["method"], r["cell"]["ratio"], r["cell"]["seed"]) for r in numbers["results"]]  # type: ignore[index]
    assert sorted(cells) == sorted((method, ratio, seed) for method, ratio in POINTS for seed in (1, 2))
    for result in numbers["results"]:
        assert 0 < result["plan_bytes"] < result["file_bytes"] < result["peak_rss_bytes"]  # type: ignore[operator]
        assert result["latency_ms"] > 0 and result["rows_per_second"] > 0  # type: ignore[operator]
        assert 0 < result["test_auc"] < 1 and 0 < result["validation_auc"] < 1  # type: ignore[operator]
    assert {p["num_seeds"] for p in numbers["points"]} == {2}


@pytest.mark.slow
def test_a_failed_cell_is_told_and_stops_nothing(swept: Swept) -> None:
    assert swept.ended.returncode == 1, swept.ended.stderr
    assert re.search(r"error: \d+ of \d+ cells failed; \S+/pareto.html says why", swept.ended.stderr)
    failures = swept.numbers()["failures"]
    assert {f["cell"]["method"] for f in failures} == {"broken"}  # type: ignore[index]
    assert all("the loss became" in str(f["message"]) and Path(str(f["log"])).is_file() for f in failures)


@pytest.mark.slow
def test_refused_budgets_are_told_with_their_floor(swept: Swept) -> None:
    refused = {(r["method"], r["ratio"]): r["floor_bytes"] for r in swept.numbers()["refusals"]}
    plan_bytes = {p["method"]: p["plan_bytes"] for p in swept.numbers()["points"] if p["ratio"] == 1.0}
    assert refused == {("full", 8.0): plan_bytes["full"], ("int8", 8.0): plan_bytes["int8"]}


@pytest.mark.slow
def test_trials_are_equally_many_and_the_best_on_validation_is_used(swept: Swept) -> None:
    trials = swept.numbers()["trials"]
    for method, ratio in POINTS:
        mine = [t for t in trials if (t["cell"]["method"], t["cell"]["ratio"]) == (method, ratio)]  # type: ignore[index]
        assert [t["cell"]["trial"] for t in mine] == ["lr0.02", "lr0.1"]  # type: ignore[index]
        best = max(mine, key=lambda t: float(str(t["validation_auc"])))
        assert [t for t in mine if t["chosen"]] == [best]
        used = [r["cell"] for r in swept.numbers()["results"]]
        taken = {c["trial"] for c in used if (c["method"], c["ratio"]) == (method, ratio)}  # type: ignore[index]
        assert taken == {best["cell"]["trial"]}  # type: ignore[index]


@pytest.mark.slow
def test_methods_that_act_after_training_share_one(swept: Swept) -> None:
    assert not list(swept.folder.glob("cells/int8/*/train")), "int8 serves what full has trained"
    assert list(swept.folder.glob("cells/full/*/train")) and list(swept.folder.glob("cells/int8/*/export"))
    trained = json.loads(next(swept.folder.glob("cells/full/*seed2/train/metrics.json")).read_text())
    frozen = json.loads(next(swept.folder.glob("cells/int8/*seed2/validate/metrics.json")).read_text())
    assert frozen["validation.auc"] != trained["validation.auc"], "validated as served, not as trained"
    assert frozen["validation.auc"] == pytest.approx(trained["validation.auc"], abs=0.02)


@pytest.mark.slow
def test_page_is_whole_and_each_cell_can_be_repeated(swept: Swept) -> None:
    page = (swept.folder / "pareto.html").read_text()
    assert "http:" not in page and "https:" not in page and page.rstrip().endswith("</html>")
    assert {"pareto.html", "pareto.json", "pareto.md", "pareto.svg"} <= {p.name for p in swept.folder.iterdir()}
    for result in swept.numbers()["results"]:
        cell = dict(result["cell"])  # type: ignore[call-overload]
        module, *overrides = cell["command"].removeprefix("python -m ").split()
        assert module == ("pipelines.compress" if cell["method"] == "int8" else "pipelines.run")
        run = compose_run([text.strip("'") for text in overrides])
        assert (run.config.name, run.config.seed) == (cell["run"], cell["seed"])
    told = call("run", swept.runs, *[text.strip("'") for text in _command(swept, "hash") if "runs=" not in text])
    assert told.stderr.count("unchanged, nothing to do") == 4, told.stderr


def _command(swept: Swept, method: str) -> list[str]:
    cells = [dict(r["cell"]) for r in swept.numbers()["results"]]  # type: ignore[call-overload]
    return next(str(c["command"]) for c in cells if c["method"] == method).split()[3:]


def test_overrides_that_cells_share() -> None:
    given = [
        "experiment=pareto/x",
        "name=a",
        "seed=3",
        "embedding=hash",
        "embedding.full_below=10",
        "+pareto.seeds=[1]",
        "runs=r",
        "train.epochs=1",
        "model=lr",
    ]
    assert base_overrides(given) == ("experiment=pareto/x", "embedding.full_below=10", "train.epochs=1", "model=lr")


def test_what_a_method_has_on_its_command_line() -> None:
    values = {
        "embedding": "unified",
        "embedding.num_lookups": 4,
        "embedding.alone": ["C1", "C2"],
        "a.b": None,
        "c": True,
    }
    config = ParetoConfig(methods=["full", "four"], ratios=[1], seeds=[1], overrides={"four": values})
    assert config.method_overrides("full") == ("embedding=full",)
    assert config.method_overrides("four") == (
        "embedding=unified",
        "embedding.num_lookups=4",
        "embedding.alone=[C1,C2]",
        "a.b=null",
        "c=true",
    )


def test_commits_are_those_of_the_trainings(tmp_path: Path) -> None:
    for name, commit in {"a": "f00", "b": "bad", "c": "f00"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "stage.json").write_text(json.dumps({"finished": True, "commit": commit}))
    assert commits(tmp_path / name for name in "abc") == "bad, f00"


def test_trials_are_all_pairs() -> None:
    config = ParetoConfig(methods=["full"], ratios=[1], seeds=[1], learning_rates=[0.1, 0.2], regularizers=[0.0, 1e-5])
    assert [trial.label for trial in config.trials] == ["lr0.1_reg0", "lr0.1_reg1e-05", "lr0.2_reg0", "lr0.2_reg1e-05"]
    assert config.trials[1].overrides == (
        "train.optimizer.table_learning_rate=0.1",
        "train.optimizer.table_regularizer=1e-05",
    )
    assert [trial.label for trial in ParetoConfig(methods=["full"], ratios=[1], seeds=[1]).trials] == [""]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"methods": []}, r"methods=\[\]: needs at least one"),
        ({"seeds": [1, 1]}, r"seeds=\[1, 1\]: holds an entry twice"),
        ({"ratios": [0.5]}, r"ratios=\[0.5\]: must be 1 or more"),
        ({"methods": ["../x"]}, r"cannot name folders"),
        ({"overrides": {"hash": {}}}, r"overrides names \['hash'\], which methods does not hold"),
    ],
)
def test_impossible_sweeps_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ParetoConfig(**{"methods": ["full"], "ratios": [1.0], "seeds": [1], **values})  # type: ignore[arg-type]


def test_sweep_without_an_experiment(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pareto is not set.*experiment=pareto/"):
        pareto.work(make_run(tmp_path, *SMALL))


def test_budgets_are_planned_before_training(small_runs: Path) -> None:
    manifest = Manifest.read(make_run(small_runs, *SMALL).stage("ingest"))
    config = ParetoConfig(methods=["full", "fp16", "nosuch"], ratios=[1, 1.5, 4], seeds=[1])

    def planned(method: str, ratio: float) -> PlannedBudget | Refusal:
        return plan_budget(method, ratio, base=SMALL, config=config, manifest=manifest)

    full, once, more, above = planned("full", 1), planned("fp16", 1), planned("fp16", 1.5), planned("fp16", 4)
    assert isinstance(full, PlannedBudget) and isinstance(once, PlannedBudget) and isinstance(more, PlannedBudget)
    assert full.trained == once.trained and not full.frozen and once.frozen
    assert without_repeats([full, once, more]) == [full, more], "one format is one point, at its smallest budget"
    assert isinstance(above, Refusal) and above.floor_bytes is not None and "Raise the budget" in above.message
    with pytest.raises(ConfigError, match=r"Could not find 'embedding/nosuch'"):
        planned("nosuch", 1)


@pytest.mark.slow
def test_a_cell_whose_process_dies_is_a_failure(tmp_path: Path) -> None:
    """Its log cannot be opened, so that it ends before it can say anything, as one that is killed."""
    assert "the process ended with status 1" in Worker().do(["name=x"], ["train"], tmp_path)
