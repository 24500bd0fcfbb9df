"""Every search of conf/search: within its budget, repeatable, resumable, refused below its floor, retrainable."""

import json
import shutil
from pathlib import Path

import pytest

from pipelines.search import search_folder
from pipelines.search_report import Frontier, read_frontier
from recsys.core.batch import BatchSource
from recsys.core.errors import ConfigError, DataError
from recsys.core.plan import TablePlan
from recsys.export.manifest import BundleManifest
from recsys.train.trainer import Trainer
from tests.pipelines.world import SMALL, do
from tests.search.world import Made

CONF = Path(__file__).resolve().parents[2] / "conf" / "search"
SEARCHES = sorted(path.stem for path in CONF.glob("*.yaml"))
QUICK = {
    "random": ("search.trials=2", "search.rungs=1", "search.steps_per_rung=2"),
    "tpe": ("search.trials=3", "search.startup_trials=1", "search.rungs=2", "search.steps_per_rung=2"),
    "greedy": ("search.trials=3", "search.rungs=1", "search.steps_per_rung=2"),
    "pep": ("search.initial=-6", "search.threshold_learning_rate=0.1"),
    "optembed": ("search.evolution.generations=2", "search.evolution.mutations=2", "search.evolution.crossovers=2"),
}
TRIALS = ("random", "tpe", "greedy")
RATIO, FRONTIER = 4, (2, 10)
COMMON = (*SMALL, f"search.compression_ratio={RATIO}", "model=deepfm")
OVERRIDES = tuple(text for text in COMMON if not text.startswith(("model=dcnv2", "model.num_cross_layers")))


def options(search: str) -> tuple[str, ...]:
    frontier = f"search.frontier={frontier_of(search)}"
    return (f"search={search}", *OVERRIDES, frontier, *QUICK.get(search, ()), f"name={search}")


def frontier_of(search: str) -> list[int]:
    """Trials are made anew for each budget: one will do."""
    return [] if search in TRIALS else list(FRONTIER)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of the finished stage of each search."""
    runs = tmp_path_factory.mktemp("searches") / "runs"
    return Made(lambda search: search_folder(do("search", runs, *options(search))))


@pytest.mark.parametrize("search", SEARCHES)
def test_every_budget_is_met_and_plans_take_the_bytes_they_say(search: str, results: dict[str, Path]) -> None:
    frontier: Frontier = read_frontier(results[search])
    assert [point.compression_ratio for point in frontier.points] == pytest.approx(
        [RATIO, *sorted(frontier_of(search))], rel=0.011
    )
    for point in frontier.points:
        plan = TablePlan.from_json((results[search] / point.plan).read_text())
        assert 0.99 * point.budget_bytes <= plan.num_bytes == point.num_bytes <= point.budget_bytes
        assert len(point.features) == len(plan.features)
        assert point.score is None or 0.0 < point.score < 1.0
    assert "| budget, bytes |" in (results[search] / "frontier.md").read_text()


@pytest.mark.parametrize("search", SEARCHES)
def test_equal_seeds_give_equal_plans(search: str, results: dict[str, Path], tmp_path: Path) -> None:
    again = search_folder(do("search", tmp_path / "runs", *options(search)))
    for name in ("plan.json", "choice.json", "frontier.json"):
        assert (again / name).read_text() == (results[search] / name).read_text()


@pytest.mark.parametrize("search", SEARCHES)
def test_a_budget_below_the_floor_is_refused_before_anything_is_trained(search: str, tmp_path: Path) -> None:
    given = [text for text in options(search) if not text.startswith(("search.compression_ratio", "search.frontier"))]
    with pytest.raises(ConfigError, match=r"below the floor of [\d,]+.*Raise it to 0\.\d+ MiB"):
        do("search", tmp_path / "runs", *given, "search.budget_mib=0.00001")
    assert not (tmp_path / "runs" / search).exists()


def test_a_plan_is_trained_evaluated_and_exported(results: dict[str, Path]) -> None:
    search = "pep"  # whose plans have a file beside them
    folder = results[search]
    runs = folder.parents[2]
    given = [text for text in options(search) if not text.startswith(("search", "name="))]
    for stage in ("train", "evaluate", "export"):
        run = do(
            stage, runs, *given, f"name=again_{search}", "embedding=plan", f"embedding.path={folder / 'plan.json'}"
        )
    metrics = json.loads((run.stage("train") / "metrics.json").read_text())
    exported = BundleManifest.read(run.stage("export")).models["float32"].plan_bytes
    assert metrics["plan.bytes"] == exported == read_frontier(folder).points[0].num_bytes


def test_a_slice_of_the_supernet_is_evaluated_and_exported_without_training(results: dict[str, Path]) -> None:
    folder = results["matryoshka"]
    runs = folder.parents[2]
    given = [text for text in options("matryoshka") if not text.startswith(("search", "name="))]
    (smallest,) = (point for point in read_frontier(folder).points if point.compression_ratio > RATIO + 1)
    plan = ("embedding=plan", f"embedding.path={folder / smallest.plan}")
    for stage in ("train", "evaluate", "export"):
        run = do(stage, runs, *given, *plan, f"name=matryoshka-sliced-{smallest.budget_bytes}")
    assert json.loads((run.stage("train") / "history.json").read_text()) == [], "it was trained again"
    assert 0 < json.loads((run.stage("train") / "metrics.json").read_text())["validation.auc"] < 1
    assert (run.stage("export") / "model.pt").is_file()


@pytest.mark.parametrize("search", TRIALS)
def test_what_was_scored_counts_after_a_restart(search: str, results: dict[str, Path], tmp_path: Path) -> None:
    """A search that was killed while it wrote its last trial ends as one that was not."""
    shutil.copytree(results[search].parents[2] / "data", tmp_path / "runs" / "data")
    folder = results[search]
    aside = tmp_path / "runs" / search / "search" / f"{folder.name}.partial"
    shutil.copytree(folder, aside)
    (storage,) = (path for path in (aside / "work").glob("*.jsonl") if str(budget_of(folder)) in path.name)
    lines = storage.read_bytes().splitlines(keepends=True)
    storage.write_bytes(b"".join(lines[:-3] if search == "tpe" else [*lines[:-1], lines[-1][:20]]))
    record = json.loads((aside / "stage.json").read_text())
    (aside / "stage.json").write_text(json.dumps({**record, "finished": False}))
    again = search_folder(do("search", tmp_path / "runs", *options(search)))
    assert (again / "plan.json").read_text() == (folder / "plan.json").read_text()


@pytest.mark.parametrize("search", ["pep", "autodim"])  # one that learns from each part of the rows
def test_a_supernet_that_was_stopped_goes_on_where_it_was(
    search: str, results: dict[str, Path], tmp_path: Path
) -> None:
    """Stopped in its second epoch, with optimizers of masks and places in held-out rows as they are then."""
    given = [*options(search), "search.epochs=3"]
    whole = search_folder(do("search", tmp_path / "whole", *given))
    train_epoch = Trainer._train_epoch

    def stopping(trainer: Trainer, source: BatchSource) -> None:
        if trainer.progress.epoch == 1:
            raise MemoryError
        train_epoch(trainer, source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train_epoch", stopping)
        with pytest.raises(MemoryError):
            do("search", tmp_path / "stopped", *given)
    again = search_folder(do("search", tmp_path / "stopped", *given))
    for name in ("plan.json", "frontier.json"):
        assert (again / name).read_text() == (whole / name).read_text()


def budget_of(folder: Path) -> int:
    return read_frontier(folder).points[0].budget_bytes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("search=mde", "search.budget_mib=100"), "there is nothing to search"),
        (("search=mde", "search.compression_ratio=0.5"), "there is nothing to search"),
        (("search=mde", "search.compression_ratio=4", "embedding=hash"), "Leave embedding= out"),
        (("search=dnis", "search.compression_ratio=4", "search.holdout=0.001"), "Raise search.holdout"),
        (("search=dnis", "search.compression_ratio=4", "search.epochs=0"), "search.epochs=0"),
        ((), "search= is missing"),
    ],
)
def test_what_cannot_be_searched_is_refused(given: tuple[str, ...], message: str, tmp_path: Path) -> None:
    common = [text for text in OVERRIDES if not text.startswith("search")]
    with pytest.raises((ConfigError, DataError), match=message):
        do("search", tmp_path / "runs", *common, *given)
