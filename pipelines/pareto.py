"""`python -m pipelines.pareto experiment=pareto/<dataset>`: every method at every budget, and one page about all.

Searches (`pareto.searches`) go first, one for all budgets of a seed; the plans that they find are cells like others.
Each cell is a run with the usual stages, so that a sweep that was stopped goes on where it was, and each cell can be
repeated by the command line that the page prints beside it.
"""

import logging
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.config import Run
from pipelines.entry import given_overrides, stage_main
from pipelines.lock import locked
from pipelines.pareto_cells import (
    Job,
    PlannedBudget,
    Sharing,
    base_overrides,
    plan_budget,
    trial_jobs,
    without_repeats,
)
from pipelines.pareto_config import ParetoConfig
from pipelines.pareto_done import is_done, note_done
from pipelines.pareto_facts import commits, empty_sweep
from pipelines.pareto_progress import SweepProgress
from pipelines.pareto_results import CellFolders, read_result, validation_auc, with_latency
from pipelines.pareto_search import SearchJob, search_jobs
from pipelines.pareto_worker import Worker
from pipelines.stage import fingerprint
from recsys.core.errors import ConfigError, RecsysError
from recsys.core.manifest import Manifest
from recsys.core.progress import ProgressBar
from recsys.evaluate.pareto import Failure, Refusal, Result, Searched, Sweep, TrialResult
from recsys.evaluate.pareto_page import write_sweep

logger = logging.getLogger(__name__)

SCORED = ("evaluate", "export")
INTERRUPTED = 130


def work(run: Run) -> None:
    """Do every cell that is not done, then say where the page is.

    Raises:
        ConfigError: no sweep is configured, it is of users and items, or a method does not exist.
        RecsysError: a cell failed; the others are done.
    """
    config = run.config.pareto
    if config is None:
        raise ConfigError("pareto is not set: nothing to sweep. Choose experiment=pareto/<data set>.")
    if run.config.retrieval is not None:
        raise ConfigError(
            "retrieval is set: this page is of click models. Sweep users and items by `python -m pipelines.run "
            "--multirun embedding=…`, then `python -m tools.recall_by_bytes`."
        )
    with locked(run.folder / "sweep", wait=False):
        try:
            sweep = _Sweeping(run, config, base_overrides(given_overrides())).run()
        except KeyboardInterrupt:
            print("stopped. The same command goes on from here.", file=sys.stderr)
            sys.exit(INTERRUPTED)
    print(f"sweep {run.config.name}: {len(sweep.results)} cells, {run.folder / 'pareto.html'}")
    if sweep.failures:
        raise RecsysError(
            f"{len(sweep.failures)} of {sweep.num_cells} cells failed; {run.folder / 'pareto.html'} says why. "
            "The same command tries them again."
        )


@dataclass
class _Sweeping:
    """One sweep under way."""

    sweep_run: Run
    config: ParetoConfig
    base: tuple[str, ...]
    worker: Worker = field(default_factory=Worker)
    results: list[tuple[Job, Result]] = field(default_factory=list)
    trials: list[TrialResult] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    searched: list[Searched] = field(default_factory=list)

    def run(self) -> Sweep:
        """All of it."""
        self._ingest()
        budgets, refusals = self._plan()
        jobs, found, unreached = search_jobs(
            self.config, base=self.base, sweep=self.sweep_run.config.name, runs=self.sweep_run.config.runs
        )
        budgets, refusals = [*budgets, *found], [*refusals, *unreached]
        self._empty = empty_sweep(self.sweep_run, self.config, num_budgets=len(budgets), refusals=refusals)
        self._sharing = Sharing()
        first, *others = self.config.seeds
        trials = self.config.trials
        steps = [f"searching {job.method}" for job in jobs]
        steps += [b.method for b in budgets for _ in range(len(trials) + (len(trials) > 1))]
        steps += [b.method for _ in others for b in budgets]
        with SweepProgress(steps) as self._progress:
            for job in jobs:
                self._search(job)
            chosen = {budget: self._tune(budget, first) for budget in budgets}
            for seed in others:
                for budget, best in chosen.items():
                    self._cell(None if best is None else replace(best, seed=seed), budget)
        self._measure()
        return self._write()

    def _folders(self, job: Job) -> CellFolders:
        return CellFolders(Path(self.sweep_run.config.runs), job)

    def _ingest(self) -> None:
        """Read the data set, once for all cells."""
        overrides = [*self.base, f"runs={self.sweep_run.config.runs}", f"name={self.sweep_run.config.name}"]
        message = self.worker.do(overrides, ["ingest"], self.sweep_run.folder / "ingest.log")
        if message:
            raise RecsysError(message)
        self._data = fingerprint(self.sweep_run.stage("ingest"))
        if Manifest.read(self.sweep_run.stage("ingest")).label is not None:
            raise ConfigError(
                "the labels of this data set are numbers (label_kind number), and this page is of AUC. Sweep by "
                "`python -m pipelines.run --multirun embedding=…`, and `python -m pipelines.compare` the runs by RMSE."
            )

    def _plan(self) -> tuple[list[PlannedBudget], list[Refusal]]:
        """What each method makes of each budget, before any training."""
        manifest = Manifest.read(self.sweep_run.stage("ingest"))
        pairs = [(method, ratio) for method in self.config.methods for ratio in self.config.ratios]
        planned: list[PlannedBudget] = []
        refusals: list[Refusal] = []
        with ProgressBar("plan", total=len(pairs), unit="plans") as bar:
            for method, ratio in pairs:
                found = plan_budget(method, ratio, base=self.base, config=self.config, manifest=manifest)
                if isinstance(found, Refusal):
                    refusals.append(found)
                else:
                    planned.append(found)
                bar.advance(1)
        return without_repeats(planned), refusals

    def _search(self, job: SearchJob) -> None:
        """Do a search, in a process of its own; if it fails, so will the cells of its plans."""
        self._progress.start(job.name.removeprefix(f"{self.sweep_run.config.name}/"))
        log = job.run.folder / "log.txt"
        message = self.worker.do(job.overrides, ["search"], log)
        self._progress.end(worked=True, failed=bool(message))
        if message:
            self.failures.append(Failure(cell=job.cell, message=message, log=str(log)))
        else:
            self.searched.append(job.searched())
        self._write()

    def _job(self, budget: PlannedBudget, seed: int) -> Job:
        return Job(
            budget=budget,
            trial=self.config.trials[0],
            seed=seed,
            sweep=self.sweep_run.config.name,
            base=self.base,
            runs=self.sweep_run.config.runs,
        )

    def _tune(self, budget: PlannedBudget, seed: int) -> Job | None:
        """Train every trial, finish the best on validation; returns it, or None if every trial failed."""
        jobs = list(trial_jobs(self._job(budget, seed), self.config.trials))
        if len(jobs) == 1:
            self._cell(jobs[0], budget)
            return jobs[0]
        tried = []
        for job in jobs:
            shared = self._sharing.applied(job)
            if self._step(shared, ()):
                tried.append((validation_auc(self._folders(shared)), job))
        best = max(tried, key=lambda pair: pair[0])[1] if tried else None
        self.trials += [
            TrialResult(cell=job.cell, values=dict(job.trial.values), validation_auc=auc, chosen=job is best)
            for auc, job in tried
        ]
        self._cell(best, budget)
        return best

    def _cell(self, job: Job | None, budget: PlannedBudget) -> None:
        """Do all stages of a cell."""
        if job is None:
            self._progress.start(f"{budget.method} {budget.ratio:g}×, of which no trial ended well")
            self._progress.end(worked=False, failed=True)
            return
        job = self._sharing.applied(job)
        if self._step(job, SCORED):
            self.results.append((job, read_result(self._folders(job))))
            self._write()

    def _step(self, job: Job, stages: tuple[str, ...]) -> bool:
        """Train a job and do more of its stages, in a process of their own; a failure is noted, the sweep goes on."""
        folders = self._folders(job)
        wanted = [*([] if job.trained_by else ["train"]), *(["validate"] if job.budget.frozen else []), *stages]
        self._progress.start(job.name.removeprefix(f"{job.sweep}/cells/"))
        todo = wanted if not is_done(folders, wanted, self._data) else []
        if job.trained_by and not (folders.stage("train") / "stage.json").exists():
            message = f"the training that it shares with {job.trained_by} failed."
        else:
            message = self.worker.do(job.overrides, todo, folders.log) if todo else ""
        self._progress.end(worked=bool(todo), failed=bool(message))
        if message:
            self.failures.append(Failure(cell=job.cell, message=message, log=str(folders.log)))
            self._write()
        elif todo:
            folders.forget_resumption()
            note_done(folders, wanted, self._data)
        return not message

    def _measure(self) -> None:
        """How fast each exported file answers: all in this process, one after the other, nothing else running."""
        with ProgressBar("latency", total=len(self.results), unit="files") as bar:
            for number, (job, result) in enumerate(self.results):
                self.results[number] = job, with_latency(result, self._folders(job).stage("export"))
                bar.advance(1)

    def _write(self) -> Sweep:
        """Write page, table and numbers of what is done."""
        order = {name: number for number, name in enumerate(self.config.all_methods)}
        results = [result for _, result in self.results]
        results.sort(key=lambda r: (order[r.cell.method], r.cell.ratio, self.config.seeds.index(r.cell.seed)))
        sweep = replace(self._empty, results=results, trials=list(self.trials), failures=list(self.failures))
        trained = commits(self._folders(job).stage("train") for job, _ in self.results)
        sweep = replace(sweep, searches=list(self.searched), facts={**sweep.facts, "commits of trainings": trained})
        write_sweep(sweep, self.sweep_run.folder)
        return sweep


main = stage_main(work)

if __name__ == "__main__":
    main()
