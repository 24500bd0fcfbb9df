"""A sweep over (method, budget, seed) as values: what each cell gave, what cells add up to, and the frontier."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys.core.jsonable import to_json


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of the sweep: its place, and how to repeat it."""

    method: str
    ratio: float  # uncompressed bytes / budget
    seed: int
    trial: str  # what was tuned, as `lr0.08_reg0.1`; empty where nothing is
    run: str  # name of the run
    command: str  # command line that repeats it


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished cell gave. The three kinds of bytes are never added up or compared with each other."""

    cell: Cell
    plan_bytes: int  # of all embeddings as served
    file_bytes: int  # of the exported model: plan, dense part, vocabularies, code
    other_bytes: int  # of dense part and vocabularies in that file
    peak_rss_bytes: int  # largest resident memory of the training process
    validation_auc: float  # of what is served, as the test AUC; what choices are made by
    test_auc: float
    test_log_loss: float  # nats a row
    rows_per_second: float  # of training
    latency_ms: float | None = None  # median of one request on one thread; None until all cells are done


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One training of the tuning at the first seed."""

    cell: Cell
    values: Mapping[str, float]  # what was tuned, by the short names of `Cell.trial`
    validation_auc: float
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A budget that a method cannot meet, found before any training."""

    method: str
    ratio: float
    floor_bytes: int | None  # what it needs at least, where its message tells
    message: str


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A cell that did not end well; the next start of the sweep tries it again."""

    cell: Cell
    message: str
    log: str  # file with all that the cell printed


@dataclass(frozen=True, kw_only=True)
class SearchedFeature:
    """What a search gives a feature."""

    feature: str
    pieces: Sequence[tuple[int, float]]  # (ids, numbers stored by each) of its pieces, most frequent ids first


@dataclass(frozen=True, kw_only=True)
class SearchedPlan:
    """What a search found for a budget."""

    ratio: float
    features: Sequence[SearchedFeature]


@dataclass(frozen=True, kw_only=True)
class Searched:
    """One search, which found the plans of all budgets."""

    method: str
    seed: int
    seconds: float  # wall clock of the process that ended it; what it trained before it was stopped is not in it
    cell: Cell  # its run and command, at its first budget
    plans: Sequence[SearchedPlan]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Everything that a report of a sweep shows."""

    title: str
    command: str
    facts: Mapping[str, str]
    full_bytes: int  # of uncompressed tables
    ratios: Sequence[float]
    num_trials: int  # for each (method, budget)
    request_rows: int  # of one request whose latency is measured
    num_cells: int  # that the sweep will have
    results: Sequence[Result] = field(default_factory=tuple)
    trials: Sequence[TrialResult] = field(default_factory=tuple)
    refusals: Sequence[Refusal] = field(default_factory=tuple)
    failures: Sequence[Failure] = field(default_factory=tuple)
    searches: Sequence[Searched] = field(default_factory=tuple)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One (method, budget): the mean over its seeds, and their spread."""

    method: str
    ratio: float
    trial: str
    num_seeds: int
    plan_bytes: int
    file_bytes: int
    peak_rss_bytes: int  # largest of the seeds
    validation_auc: float
    test_auc: float
    test_auc_low: float
    test_auc_high: float
    test_auc_sd: float | None  # None for one seed
    test_log_loss: float
    rows_per_second: float
    latency_ms: float | None
    on_frontier: bool = False


def points(results: Sequence[Result]) -> list[Point]:
    """One point for each (method, budget) in the order of `results`, with those on the frontier marked.

    A point that has fewer seeds than another (its cells failed, or are still to come) is not compared: it might owe its
    place to the seeds that it has.
    """
    groups: dict[tuple[str, float], list[Result]] = {}
    for result in results:
        groups.setdefault((result.cell.method, result.cell.ratio), []).append(result)
    found = [_point(group) for group in groups.values()]
    best = {id(point) for point in frontier(found)}
    return [Point(**{**vars(point), "on_frontier": id(point) in best}) for point in found]


def comparable(found: Sequence[Point]) -> list[Point]:
    """Points with as many seeds as any has."""
    most = max((point.num_seeds for point in found), default=0)
    return [point for point in found if point.num_seeds == most]


def frontier(found: Sequence[Point]) -> list[Point]:
    """Comparable points with a better mean validation AUC than every one of at most their bytes, by growing bytes.

    Chosen on validation, so that the test AUC of a point that is on it is no maximum over many draws.
    """
    best: list[Point] = []
    for point in sorted(comparable(found), key=lambda p: (p.plan_bytes, -p.validation_auc)):
        if not best or point.validation_auc > best[-1].validation_auc:
            best.append(point)
    return best


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The point that a reader would take at a budget: best on validation among all that fit, whatever they aimed at."""

    ratio: float
    budget_bytes: int
    point: Point


def choices(found: Sequence[Point], ratios: Sequence[float], full_bytes: int) -> list[Choice]:
    """One choice for each budget that some point fits, chosen on validation AUC alone, among comparable points."""
    chosen = []
    for ratio in sorted(ratios):
        budget = int(full_bytes / ratio)
        fitting = [point for point in comparable(found) if point.plan_bytes <= budget]
        if fitting:
            best = max(fitting, key=lambda p: (p.validation_auc, -p.plan_bytes))
            chosen.append(Choice(ratio=ratio, budget_bytes=budget, point=best))
    return chosen


def baseline(found: Sequence[Point]) -> Point | None:
    """The uncompressed tables, which the others are compared with; None if the sweep has none."""
    return next((point for point in found if point.method == "full"), None)


def as_json(sweep: Sweep) -> dict[str, Any]:
    """The sweep and its points as plain values."""
    found = points(sweep.results)
    plain: dict[str, Any] = to_json(sweep)
    return plain | {
        "points": to_json(found),
        "choices": to_json(choices(found, sweep.ratios, sweep.full_bytes)),
    }


def _point(group: Sequence[Result]) -> Point:
    first, aucs = group[0], [result.test_auc for result in group]
    return Point(
        method=first.cell.method,
        ratio=first.cell.ratio,
        trial=first.cell.trial,
        num_seeds=len(group),
        plan_bytes=first.plan_bytes,
        file_bytes=max(result.file_bytes for result in group),
        peak_rss_bytes=max(result.peak_rss_bytes for result in group),
        validation_auc=statistics.fmean(result.validation_auc for result in group),
        test_auc=statistics.fmean(aucs),
        test_auc_low=min(aucs),
        test_auc_high=max(aucs),
        test_auc_sd=statistics.stdev(aucs) if len(aucs) > 1 else None,
        test_log_loss=statistics.fmean(result.test_log_loss for result in group),
        rows_per_second=statistics.median(result.rows_per_second for result in group),
        latency_ms=_mean_of_all([result.latency_ms for result in group]),
    )


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None
