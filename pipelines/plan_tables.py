"""A survey of plans as tables on the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pipelines.plan import Survey
    from recsys.embeddings.survey import FeatureSurvey, MethodSurvey

PIPED_WIDTH = 150
"""Columns where there is no terminal to ask."""


def show(survey: Survey) -> None:
    """Print all of it on standard output."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    ratio = survey.uncompressed_bytes / max(survey.budget_bytes, 1)
    console.print(
        f"{survey.dataset}: {_bytes(survey.uncompressed_bytes)} uncompressed, budget {_bytes(survey.budget_bytes)} "
        f"({survey.budget_bytes / 2**20:.4g} MiB, {ratio:.3g}x smaller)"
    )
    console.print(_methods(survey))
    for refusal, names in _refusals(survey).items():
        console.print(f"[bold]{', '.join(names)}[/]: {_plain(refusal)}", soft_wrap=True)
    if survey.features:
        if survey.refusal:
            console.print(f"full does not fit, so {survey.chosen} plans:")
        console.print(_features(survey))
    if survey.ranks:
        console.print(_ranks(survey))
        console.print(_sharding(survey))
    if survey.ranks_refusal:
        console.print(f"no sharding plan: {_plain(survey.ranks_refusal)}", soft_wrap=True)


def _refusals(survey: Survey) -> dict[str, list[str]]:
    """Methods by why they are refused, save for those whose floor tells it."""
    found: dict[str, list[str]] = {}
    for method in survey.methods:
        if method.refusal and method.floor_bytes is None:
            found.setdefault(method.refusal, []).append(method.method)
    return found


def _methods(survey: Survey) -> Table:
    table = Table(title="every method at this budget (bytes; > is the one planned below)")
    for name in ("", "method", "fits"):
        table.add_column(name)
    for name in ("floor", "ceiling", "serving", "training", "tables", "look-ups a row", "collide"):
        table.add_column(name, justify="right")
    for method in survey.methods:
        chosen = ">" if method.method == survey.chosen else ""
        table.add_row(chosen, method.method, _fits(method, survey.budget_bytes), *_figures(method))
    return table


def _fits(method: MethodSurvey, budget_bytes: int) -> str:
    if not method.refusal:
        return "yes"
    if method.floor_bytes is not None and method.floor_bytes > budget_bytes:
        return "below its floor"
    return "refused"


def _figures(method: MethodSurvey) -> list[str]:
    ceiling = "grows" if method.floor_bytes is not None and method.ceiling_bytes is None else None
    return [
        _bytes(method.floor_bytes),
        ceiling or _bytes(method.ceiling_bytes),
        _bytes(method.serving_bytes),
        _bytes(method.training_bytes),
        _bytes(method.num_tables),
        _bytes(method.num_lookups),
        _share(method.colliding, exact=method.exact),
    ]


def _features(survey: Survey) -> Table:
    table = Table(title=f"plan of {survey.chosen}, by feature (shared tables divided by ids)", show_footer=True)
    totals = {
        "serving": sum(each.serving_bytes for each in survey.features),
        "training": sum(each.training_bytes for each in survey.features),
    }
    for name in ("feature", "ids", "rows", "shared by", "width", "stored as", "serving", "training"):
        right = name not in ("feature", "width", "stored as")
        footer = _bytes(totals[name]) if name in totals else "all" if name == "feature" else ""
        table.add_column(name, footer, justify="right" if right else "left")
    table.add_column("collide: own feature", justify="right")
    table.add_column("any feature", justify="right")
    table.add_column("as unknown", justify="right")
    for each in survey.features:
        table.add_row(*_feature(each))
    return table


def _feature(each: FeatureSurvey) -> list[str]:
    found = each.collisions
    return [
        _plain(each.feature),
        "hashed" if each.num_ids is None else _bytes(each.num_ids),
        _bytes(each.num_rows),
        str(each.num_sharing) if each.num_sharing > 1 else "",
        _widths(each.widths),
        ", ".join(each.row_types),
        _bytes(each.serving_bytes),
        _bytes(each.training_bytes),
        _share(found.same_feature, exact=found.exact),
        _share(found.any_feature, exact=found.exact),
        _share(found.as_unknown, exact=found.exact),
    ]


def _ranks(survey: Survey) -> Table:
    table = Table(title=f"what each of {len(survey.ranks)} rank(s) holds while training (bytes)")
    for name in ("rank", "shards", "tables", "their optimizer", "on every rank", "in all"):
        table.add_column(name, justify="right")
    for each in survey.ranks:
        parts = (each.table_bytes, each.optimizer_bytes, each.replicated_bytes)
        table.add_row(str(each.rank), str(each.num_shards), *map(_bytes, (*parts, sum(parts))))
    return table


def _sharding(survey: Survey) -> Table:
    """Tables by how TorchRec's planner lays them."""
    table = Table(title="sharding plan")
    for name in ("sharding", "ranks", "tables"):
        table.add_column(name)
    groups: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for each in survey.tables:
        groups.setdefault((each.sharding, each.ranks), []).append(each.table)
    for (sharding, ranks), names in sorted(groups.items()):
        table.add_row(sharding, ", ".join(map(str, ranks)), _plain(", ".join(names)))
    return table


def _bytes(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _share(share: float | None, *, exact: bool) -> str:
    return "-" if share is None else f"{'' if exact else '~'}{share:.2%}"


def _widths(widths: tuple[int, ...]) -> str:
    if len(set(widths)) == 1 and len(widths) > 1:
        return f"{len(widths)} x {widths[0]}"
    return " + ".join(map(str, widths)) or "-"


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
