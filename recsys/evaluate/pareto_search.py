"""Searches on a sweep's page: what each cost, and which widths it gave to which ids."""

import statistics
from collections.abc import Sequence

from recsys.evaluate.pareto import Searched, SearchedFeature, SearchedPlan
from recsys.evaluate.pareto_tables import markdown_table, number_cell, sortable, text_cell
from recsys.evaluate.sections import text

CELL_WIDTH, CELL_HEIGHT, LABEL, TOP = 26, 18, 120, 20
HOUR = 3600.0

CSS = """
.widths text { fill: var(--muted); font: 11px var(--font); font-variant-numeric: tabular-nums; }
.widths .cell { fill: var(--c0); stroke: var(--surface); }
.widths .cell text { fill: var(--ink); }
"""


def search_section(searches: Sequence[Searched]) -> str:
    """Costs and heat maps as HTML; nothing without searches."""
    if not searches:
        return ""
    note = (
        "Wall clock of one search, which found the plans of all its budgets, retraining not counted; of the process "
        "that ended it, if it was stopped and taken up again. A search without training takes seconds."
    )
    rows = [
        text_cell(method)
        + number_cell(hours, f"{hours:.3f}")
        + number_cell(most, f"{most:.3f}")
        + number_cell(count, str(count))
        + number_cell(plans, str(plans))
        for method, hours, most, count, plans in _costs(searches)
    ]
    heads = [(name, name == "method") for name in COST_HEADS]
    maps = "".join(_maps(method, searches) for method in dict.fromkeys(each.method for each in searches))
    said = (
        "Numbers stored by an id, by the rank of its frequency in training: columns are octaves of ranks, the most "
        "frequent ids left. Dark is the widest of the map. Of the first seed."
    )
    return (
        f'<h2>What the searches cost</h2><p class="note">{note}</p>{sortable("searches", heads, rows)}'
        f'<h2>Widths by feature and frequency</h2><p class="note">{said}</p>{maps}'
    )


COST_HEADS = ("method", "hours, mean", "hours, most", "seeds", "budgets")


def search_markdown(searches: Sequence[Searched]) -> list[str]:
    """The costs as lines of Markdown."""
    if not searches:
        return []
    rows = [
        (method, f"{mean:.3f}", f"{most:.3f}", str(count), str(plans))
        for method, mean, most, count, plans in _costs(searches)
    ]
    return ["", "What the searches cost:", "", *markdown_table(COST_HEADS, rows)]


def _costs(searches: Sequence[Searched]) -> list[tuple[str, float, float, int, int]]:
    """(method, mean hours, most hours, number of seeds, number of budgets)."""
    found = []
    for method in dict.fromkeys(each.method for each in searches):
        own = [each for each in searches if each.method == method]
        hours = [each.seconds / HOUR for each in own]
        found.append((method, statistics.fmean(hours), max(hours), len(own), len(own[0].plans)))
    return found


def _maps(method: str, searches: Sequence[Searched]) -> str:
    first = next(each for each in searches if each.method == method)
    boxes = [
        f'<figure class="box"><h3>{text(method)}, {plan.ratio:g}×</h3>{width_map(plan)}</figure>'
        for plan in first.plans
    ]
    summary = f"<summary>{text(method)}</summary>"
    return f'<details>{summary}<div class="grid">{"".join(boxes)}</div></details>'


def octave_widths(feature: SearchedFeature) -> list[float]:
    """Mean numbers an id in each octave [2**k - 1, 2**(k+1) - 1) of ids, counted from 0 by frequency."""
    widths: list[float] = []
    total = sum(size for size, _ in feature.pieces)
    low = 0
    while low < total:
        high = min(2 * low + 1, total)
        widths.append(_numbers(feature, low, high) / (high - low))
        low = high
    return widths


def _numbers(feature: SearchedFeature, low: int, high: int) -> float:
    """Numbers that the ids [low, high) store."""
    first, found = 0, 0.0
    for size, width in feature.pieces:
        found += width * max(0, min(high, first + size) - max(low, first))
        first += size
    return found


def width_map(plan: SearchedPlan) -> str:
    """The heat map of one plan as inline `<svg>`."""
    rows = {feature.feature: octave_widths(feature) for feature in plan.features}
    widest = max((width for widths in rows.values() for width in widths), default=0.0) or 1.0
    columns = max(len(widths) for widths in rows.values())
    parts = [
        f'<text x="{LABEL + (k + 0.5) * CELL_WIDTH}" y="{TOP - 6}" text-anchor="middle">{_octave(k)}</text>'
        for k in range(0, columns, 2)
    ]
    for number, (name, widths) in enumerate(rows.items()):
        y = TOP + number * CELL_HEIGHT
        parts.append(f'<text x="{LABEL - 6}" y="{y + 13}" text-anchor="end">{text(name)}</text>')
        parts += [_cell(name, k, width, width / widest, y) for k, width in enumerate(widths)]
    width, height = LABEL + columns * CELL_WIDTH + 10, TOP + len(rows) * CELL_HEIGHT + 6
    label = f"Widths by feature and frequency at {plan.ratio:g} times fewer bytes"
    return f'<svg class="widths" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _cell(name: str, octave: int, width: float, share: float, y: int) -> str:
    x = LABEL + octave * CELL_WIDTH
    said = text(f"{name}, ids from rank {_octave(octave)}: {width:.2f} numbers each")
    box = f'<rect class="cell" x="{x}" y="{y}" width="{CELL_WIDTH}" height="{CELL_HEIGHT}" fill-opacity="{share:.3f}">'
    return f"{box}<title>{said}</title></rect>"


def _octave(number: int) -> str:
    """First rank of an octave, from 1, short."""
    rank = 2**number
    return str(rank) if rank < 1024 else f"{rank >> 10}k" if rank < 1 << 20 else f"{rank >> 20}M"
