"""Searches within a sweep: one for each method and seed finds the plans of all budgets, which cells then retrain."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pipelines.config import Run
from pipelines.pareto_cells import PlannedBudget, compose_run, quoted, told_floor
from pipelines.pareto_config import SLICED, ParetoConfig
from pipelines.search import checked, search_folder, space_of
from pipelines.search_report import plan_name, read_frontier
from pipelines.search_slice import slice_name
from pipelines.stage import read_record
from recsys.core.errors import ConfigError
from recsys.evaluate.pareto import Cell, Refusal, Searched, SearchedFeature, SearchedPlan
from recsys.search.method import SupernetSearch

UNUSED = ("embedding.full_below=0", "embedding.init={distribution: normal, scale: 1.0e-4, center: 0.0}")
"""What a plan from a file has no use for, and refuses where the sweep's experiment sets it for all methods."""


@dataclass(frozen=True)
class SearchJob:
    """One search."""

    method: str  # as the sweep names it
    seed: int
    name: str  # of the run
    ratios: tuple[float, ...]  # within reach, smallest first
    given: tuple[str, ...]  # overrides without those of the budgets

    @property
    def overrides(self) -> list[str]:
        """All of the command line: one search for all budgets."""
        first, *others = self.ratios
        further = ",".join(f"{ratio:g}" for ratio in others)
        return [*self.given, f"search.compression_ratio={first:g}", f"search.frontier=[{further}]"]

    @cached_property
    def cell(self) -> Cell:
        """As a failure names it."""
        command = " ".join(["python -m pipelines.search", *(quoted(text) for text in self.overrides)])
        return Cell(method=self.method, ratio=self.ratios[0], seed=self.seed, trial="", run=self.name, command=command)

    @cached_property
    def run(self) -> Run:
        """The search's run."""
        return compose_run(self.overrides)

    def searched(self) -> Searched:
        """What the search left; it must be done."""
        folder = search_folder(self.run)
        plans = [
            SearchedPlan(ratio=ratio, features=tuple(_features(folder, number)))
            for number, ratio in enumerate(self.ratios)
        ]
        seconds = float(read_record(folder)["seconds"])
        return Searched(method=self.method, seed=self.seed, seconds=seconds, cell=self.cell, plans=tuple(plans))


def _features(folder: Path, number: int) -> Iterator[SearchedFeature]:
    for each in read_frontier(folder).points[number].features:
        wide = sum(size * width for size, width in each.pieces) / sum(size for size, _ in each.pieces)
        shared = each.mean_width / wide  # 1 but where ids share rows
        pieces = tuple((size, width * shared) for size, width in each.pieces)
        yield SearchedFeature(feature=each.feature, pieces=pieces)


def search_jobs(
    config: ParetoConfig, *, base: Sequence[str], sweep: str, runs: str
) -> tuple[list[SearchJob], list[PlannedBudget], list[Refusal]]:
    """The searches of a sweep, a budget for each of their plans, and the budgets that are out of their reach.

    Args:
        config: of the sweep.
        base: overrides that all runs share.
        sweep: name of the sweep; its data set must be ingested.
        runs: folder of all runs.
    """
    jobs: list[SearchJob] = []
    budgets: list[PlannedBudget] = []
    refusals: list[Refusal] = []
    for search, method in zip(config.searches, config.searched_methods, strict=True):
        name = f"{sweep}/searches/{method}/seed{{seed}}"
        given = (*base, f"search={search}", "embedding=full", *config.given(method), f"runs={runs}")
        told = {ratio: _refusal(method, ratio, given) for ratio in sorted(config.ratios) if ratio > 1}
        refusals += [refusal for refusal in told.values() if refusal is not None]
        reached = tuple(ratio for ratio, refusal in told.items() if refusal is None)
        if reached:
            names = {seed: name.format(seed=seed) for seed in config.seeds}
            own = [SearchJob(method, s, n, reached, (*given, f"seed={s}", f"name={n}")) for s, n in names.items()]
            jobs += own
            budgets += _budgets(own[0], name)
    return jobs, budgets, refusals


def _refusal(method: str, ratio: float, given: Sequence[str]) -> Refusal | None:
    """Why this budget is out of reach; None if it is not."""
    run = compose_run([*given, f"search.compression_ratio={ratio:g}", "name=planned"])
    try:
        space_of(run, checked(run))
    except ConfigError as error:
        return Refusal(method=method, ratio=ratio, floor_bytes=told_floor(str(error)), message=str(error))
    return None


def _budgets(job: SearchJob, name: str) -> Iterator[PlannedBudget]:
    """A budget for each plan; and one for its slice, where the supernet can be cut."""
    search = checked(job.run)
    budgets = search.budgets(space_of(job.run, search).features)
    folder = f"{job.run.config.runs}/{name}/{search_folder(job.run).relative_to(job.run.folder)}"
    for number, (ratio, num_bytes) in enumerate(zip(job.ratios, budgets, strict=True)):
        budget = PlannedBudget(
            method=job.method,
            ratio=ratio,
            overrides=("embedding=plan", *UNUSED),
            served=f"{job.method}/{ratio:g}",
            trained=f"{job.method}/{ratio:g}",
            frozen=False,
            plan_path=f"{folder}/{plan_name(number, num_bytes)}",
        )
        yield budget
        if isinstance(search, SupernetSearch) and search.slices:
            run = slice_name(name, number, num_bytes)
            yield replace(budget, method=job.method + SLICED, trained=f"{job.method}{SLICED}/{ratio:g}", trained_by=run)
