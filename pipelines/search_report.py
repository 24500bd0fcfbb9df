"""What a search leaves: plans, and the curve of bytes and scores beside them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from recsys.core.jsonable import from_json, to_json, with_target
from recsys.embeddings.method import full_bytes
from recsys.embeddings.planned import write_plan
from recsys.search.choice import Choice, Space
from recsys.search.method import Found
from recsys.search.plans import plan_of
from recsys.search.ticket import ticket_of

PLAN_NAME, CHOICE_NAME, FRONTIER_NAME, MARKDOWN_NAME = "plan.json", "choice.json", "frontier.json", "frontier.md"


@dataclass(frozen=True, kw_only=True)
class FeatureWidths:
    """What a choice gives one feature."""

    feature: str
    num_ids: int
    num_rows: int  # as many as ids that have one, but where ids share them
    mean_width: float  # numbers stored, by all ids
    pieces: tuple[tuple[int, int], ...]  # (ids, width) of each piece, most frequent ids first


@dataclass(frozen=True, kw_only=True)
class Point:
    """One budget of the frontier."""

    plan: str  # file, relative to the frontier's
    budget_bytes: int
    num_bytes: int
    compression_ratio: float
    score: float | None  # on what is held out of training for the search
    features: tuple[FeatureWidths, ...]


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """What `frontier.json` holds; the first point is the budget asked for."""

    uncompressed_bytes: int
    points: tuple[Point, ...]
    metric: str  # that scores are


def write_found(space: Space, found: Sequence[Found], folder: Path, *, ticket_seed: int | None, metric: str) -> None:
    """Write plan and choice of the first budget, those of the others below `frontier/`, and the frontier of all.

    Args:
        space: that was searched.
        found: one for each budget.
        folder: of the stage.
        ticket_seed: of the supernet whose initial rows the plans start with; None where they start with their own.
        metric: name of what choices were scored by.
    """
    whole = full_bytes(space.features)
    points = []
    for number, each in enumerate(found):
        plan = plan_of(space, each.choice)
        name = plan_name(number, each.budget_bytes)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).with_name(CHOICE_NAME).write_text(json.dumps(to_json(each.choice), indent=1))
        if ticket_seed is None:
            (folder / name).write_text(plan.to_json())
        else:
            ticket = ticket_of(space, each.choice, ticket_seed)
            write_plan((folder / name).parent, plan, with_target(ticket))
        points.append(
            Point(
                plan=name,
                budget_bytes=each.budget_bytes,
                num_bytes=plan.num_bytes,
                compression_ratio=whole / plan.num_bytes,
                score=each.score,
                features=tuple(_widths(space, each.choice)),
            )
        )
    frontier = Frontier(uncompressed_bytes=whole, points=tuple(points), metric=metric)
    (folder / FRONTIER_NAME).write_text(json.dumps(to_json(frontier), indent=1))
    (folder / MARKDOWN_NAME).write_text(_markdown(frontier))


def plan_name(number: int, budget_bytes: int) -> str:
    """Where the plan of a budget lies, below the stage's folder; `number` counts the budgets of the search."""
    return f"frontier/{budget_bytes}/{PLAN_NAME}" if number else PLAN_NAME


def read_choice(plan: Path) -> Choice:
    """The choice of which a plan's file was made."""
    return from_json(Choice, json.loads(plan.with_name(CHOICE_NAME).read_text()))


def read_frontier(folder: Path) -> Frontier:
    """What `write_found` wrote."""
    return from_json(Frontier, json.loads((folder / FRONTIER_NAME).read_text()))


def show(folder: Path, console: Console) -> None:
    """Print the frontier, and the widths of the first plan."""
    frontier = read_frontier(folder)
    table = Table(title=f"budgets, of {frontier.uncompressed_bytes:,} bytes uncompressed")
    for name in ("budget", "bytes", "smaller", f"{frontier.metric} held out", "plan"):
        table.add_column(name, justify="left" if name == "plan" else "right")
    for point in frontier.points:
        table.add_row(*_cells(point))
    console.print(table)
    widths = Table(title="the first plan, by feature")
    for name in ("feature", "ids", "rows", "numbers an id", "ids x width"):
        widths.add_column(name, justify="left" if name in ("feature", "ids x width") else "right")
    for each in frontier.points[0].features:
        pieces = ", ".join(f"{size:,} x {width}" for size, width in each.pieces)
        widths.add_row(each.feature, f"{each.num_ids:,}", f"{each.num_rows:,}", f"{each.mean_width:.2f}", pieces)
    console.print(widths)


def _widths(space: Space, choice: Choice) -> list[FeatureWidths]:
    return [
        FeatureWidths(
            feature=feature.name,
            num_ids=sum(piece.size for piece in pieces),
            num_rows=choice.num_rows(number),
            mean_width=choice.width(number),
            pieces=tuple((piece.size, len(piece.columns)) for piece in pieces),
        )
        for number, (feature, pieces) in enumerate(zip(space.features, choice.features, strict=True))
    ]


def _cells(point: Point) -> list[str]:
    score = "-" if point.score is None else f"{point.score:.5f}"
    return [f"{point.budget_bytes:,}", f"{point.num_bytes:,}", f"{point.compression_ratio:.1f}x", score, point.plan]


def _markdown(frontier: Frontier) -> str:
    lines = [
        f"{frontier.uncompressed_bytes:,} bytes uncompressed. Scores are {frontier.metric} on what is held out of "
        "training for the search: they rank choices, and are no estimate of a retrained plan's.",
        "",
        f"| budget, bytes | bytes | smaller | {frontier.metric} held out | plan |",
        "|--:|--:|--:|--:|---|",
        *(f"| {' | '.join(_cells(point))} |" for point in frontier.points),
        "",
        "Numbers that each feature stores, by its ids:",
        "",
        "| feature | ids | " + " | ".join(f"{point.compression_ratio:.1f}x" for point in frontier.points) + " |",
        "|---|--:|" + "--:|" * len(frontier.points),
    ]
    for number, own in enumerate(frontier.points[0].features):
        widths = [f"{point.features[number].mean_width:.2f}" for point in frontier.points]
        lines.append(f"| {own.feature} | {own.num_ids:,} | {' | '.join(widths)} |")
    return "\n".join(lines) + "\n"
