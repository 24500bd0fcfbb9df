"""Reproduction tables: every CTR model on a data set, several seeds, FuxiCTR beside, as BARS publishes it.

    python -m tools.reproduce_frappe
    python -m tools.reproduce_criteo --models dcnv2,autoint --seeds 1 --no-peer --jobs 2

Each of our runs is the usual stages of `experiment=reproduce/<data set>/<model>`, so one that was stopped goes on where
it was; FuxiCTR's runs are kept by one record each. `reproduction.md` and `.json` in `runs/reproduce/<data set>/` are
written anew after every run. First ours by seed, then FuxiCTR's by seed. Words behind the options go to our runs as
overrides (`runs=…`, `train.epochs=1`). The exit status is 1 if a run failed.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.entry import refuse, set_up_logging
from pipelines.pareto_cells import compose_run
from pipelines.pareto_worker import Worker
from recsys.core.errors import ConfigError, RecsysError, StageError
from tools.fuxictr_setup import (
    PARTS,
    PeerPlace,
    PeerSettings,
    criteo_rows,
    frappe_rows,
    ingested_split,
    installed_peer,
    run_timed,
    write_peer_split,
)
from tools.reproduce_models import Row, Table, peer_settings
from tools.reproduce_progress import RunsProgress
from tools.reproduce_table import Reproduction, RunFailure, RunResult, Side

STAGES = ("ingest", "train", "evaluate")  # a model may read its rows encoded otherwise
INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training."""

    row: Row
    side: Side
    seed: int

    @property
    def kind(self) -> str:
        """Tasks of one kind take about equally long."""
        return f"{self.row.name} {self.side.value}"


class Runner:
    """Does tasks, in this order of folders: `<runs>/reproduce/<data set>/<model>_seed<n>/` and `…/fuxictr/`."""

    def __init__(self, table: Table, overrides: Sequence[str]) -> None:
        self.table, self.overrides = table, list(overrides)
        given = [word.removeprefix("runs=") for word in overrides if word.startswith("runs=")]
        self.runs = Path(given[-1] if given else "runs")
        self.folder = self.runs / "reproduce" / table.dataset
        self._worker = Worker()

    def words(self, row: Row, seed: int) -> list[str]:
        """Overrides of one of our runs."""
        experiment = f"reproduce/{self.table.dataset}/{row.name}"
        return [f"experiment={experiment}", f"seed={seed}", *self.overrides, f"name={experiment}_seed{seed}"]

    def ingest(self) -> Path:
        """Read the data set, once for all; returns its folder."""
        words = self.words(self.table.rows[0], self.table.seeds[0])
        message = self._worker.do(words, ["ingest"], self.folder / "ingest.log")
        if message:
            raise RecsysError(message)
        return compose_run(words).stage("ingest")

    def place(self, data: Path) -> PeerPlace:
        """FuxiCTR, ready to run on the same rows."""
        split, root = self.folder / "fuxictr" / "split", Path(os.environ.get("RECSYS_DATA", "../shared/data"))
        if self.table.dataset == "frappe":
            frames = {part: frappe_rows(root, part) for part in PARTS}
        else:
            rows, raw = ingested_split(data), criteo_rows(root)
            frames = {part: raw[chosen] for part, chosen in rows.items()}
        write_peer_split(frames, split)
        return installed_peer(split.resolve(), (self.folder / "fuxictr" / "work").resolve())

    def settings(self, row: Row) -> PeerSettings:
        """What FuxiCTR trains beside one of our models."""
        values = compose_run(self.words(row, self.table.seeds[0])).values
        return peer_settings(values, numeric=self.table.numeric, categorical=self.table.categorical)

    def log(self, task: Task) -> Path:
        """File of all that a task printed."""
        if task.side is Side.PEER:
            return self.folder / "fuxictr" / f"{task.row.name}_seed{task.seed}.log"
        return self.folder / f"{task.row.name}_seed{task.seed}" / "log.txt"

    def ours(self, task: Task) -> RunResult:
        """Train and score one of our models, as far as that is not done.

        Raises:
            StageError: why it failed.
        """
        message = self._worker.do(self.words(task.row, task.seed), STAGES, self.log(task))
        if message:
            raise StageError(message)
        folder = self.log(task).parent
        trained = json.loads((folder / "train" / "metrics.json").read_text())
        tested = json.loads((folder / "evaluate" / "metrics.json").read_text())
        return RunResult(
            model=task.row.name,
            side=task.side,
            seed=task.seed,
            validation_auc=trained["validation.auc"],
            test_auc=tested["auc"],
            test_log_loss=tested["log_loss"],
            num_parameters=trained["plan.bytes"] // 4 + trained["model.dense_parameters"],  # rows are float32
            num_epochs=trained["train.epochs"],
            seconds=trained["train.seconds"],
            commit=json.loads((folder / "train" / "stage.json").read_text())["commit"],
        )

    def peer(self, task: Task, place: PeerPlace, settings: PeerSettings) -> RunResult:
        """Train and score FuxiCTR's model, unless a record says that this was done with these settings.

        Raises:
            StageError: with the end of its output.
        """
        path = self.log(task).with_suffix(".json").resolve()
        record = json.loads(path.read_text()) if path.exists() else {}
        if record.get("settings") != json.loads(json.dumps(asdict(settings))):
            run_timed(place.command(settings, task.seed, path), self.log(task), os.environ)
            record = json.loads(path.read_text())
        return RunResult(
            model=task.row.name,
            side=task.side,
            seed=task.seed,
            validation_auc=record["validation_auc"],
            test_auc=record["test_auc"],
            test_log_loss=record["test_log_loss"],
            num_parameters=record["num_parameters"],
            num_epochs=record["num_epochs"],
            seconds=sum(record["epoch_seconds"]),
        )


def tasks(rows: Sequence[Row], seeds: Sequence[int], *, peer: bool) -> list[Task]:
    """All that is to be done, in order."""
    ours = [Task(row=row, side=Side.OURS, seed=seed) for seed in seeds for row in rows]
    theirs = [Task(row=row, side=Side.PEER, seed=seed) for seed in seeds for row in rows if row.peer]
    return ours + (theirs if peer else [])


def reproduce(table: Table, args: argparse.Namespace) -> Reproduction:
    """Do everything that is not done; the tables are written after every run."""
    rows = [row for row in table.rows if not args.models or row.name in args.models]
    todo = tasks(rows, args.seeds, peer=args.peer)
    runner = Runner(table, args.overrides)
    found = Reproduction(table, rows, args.command)
    data = runner.ingest()
    place = runner.place(data) if any(task.side is Side.PEER for task in todo) else None
    settings = {task.row.name: runner.settings(task.row) for task in todo if task.side is Side.PEER}

    def do(task: Task) -> RunResult:
        if task.side is Side.OURS:
            return runner.ours(task)
        assert place is not None
        return runner.peer(task, place, settings[task.row.name])

    pool = ThreadPoolExecutor(args.jobs)
    try:
        with RunsProgress([task.kind for task in todo], jobs=args.jobs) as progress:
            futures = {pool.submit(do, task): task for task in todo}
            for future in as_completed(futures):
                _note(found, futures[future], future, runner, progress)
                found.write(runner.folder)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return found


def _note(found: Reproduction, task: Task, future: "Future[RunResult]", runner: Runner, progress: RunsProgress) -> None:
    """Keep what a task came to."""
    error, what = future.exception(), f"{task.kind} seed {task.seed}"
    if error is None:
        result = future.result()
        found.results.append(result)
        progress.done(task.kind, what, f"test AUC {result.test_auc:.5f} in {result.seconds:.0f} s", result.seconds)
        return
    if not isinstance(error, RecsysError | OSError | ValueError | KeyError):
        raise error
    message = str(error) if isinstance(error, RecsysError) else f"{type(error).__name__}: {error}"
    log = str(runner.log(task))
    found.failures.append(RunFailure(model=task.row.name, side=task.side, seed=task.seed, message=message, log=log))
    progress.done(task.kind, what, f"failed, {log} says why", None)


def main(table: Table) -> None:
    """Parse the command line and run."""
    names = [row.name for row in table.rows]
    parser = argparse.ArgumentParser(description=f"The reproduction table of {table.title}.")
    parser.add_argument("--models", type=lambda text: text.split(","), default=[], help=f"of {', '.join(names)}")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=table.seeds)
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True, help="run FuxiCTR beside")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once, of one thread each")
    parser.add_argument("overrides", nargs="*", help="key=value of our runs")
    args = parser.parse_intermixed_args()
    args.command = f"python -m tools.reproduce_{table.dataset} {' '.join(sys.argv[1:])}".strip()
    set_up_logging()
    logging.getLogger("tools").setLevel(logging.INFO)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        if unknown := [name for name in args.models if name not in names]:
            raise ConfigError(f"--models {unknown}: no such model here. There are {names}.")
        found = reproduce(table, args)
    except RecsysError as error:
        refuse(str(error))
    except KeyboardInterrupt:
        print("stopped. The same command goes on from here.", file=sys.stderr)
        os._exit(INTERRUPTED)  # trainings end with this process; their threads would wait for them
    folder = Runner(table, args.overrides).folder
    print(f"{len(found.results)} runs, {len(found.failures)} failed: {folder / 'reproduction.md'}")
    sys.exit(1 if found.failures else 0)
