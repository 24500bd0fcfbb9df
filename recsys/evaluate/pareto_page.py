"""A sweep as one self-contained page, as numbers, as Markdown and as a figure for a README."""

import json
import logging
from pathlib import Path

from recsys.evaluate import sections
from recsys.evaluate.pareto import Choice, Point, Sweep, as_json, baseline, choices, comparable, points
from recsys.evaluate.pareto_figure import CSS as FIGURE_CSS
from recsys.evaluate.pareto_figure import pareto_figure, standalone
from recsys.evaluate.pareto_search import CSS as SEARCH_CSS
from recsys.evaluate.pareto_search import search_markdown, search_section
from recsys.evaluate.pareto_tables import (
    cell_table,
    choice_table,
    failure_table,
    markdown,
    point_table,
    refusal_table,
    trial_table,
)
from recsys.evaluate.pareto_trials import rising_note
from recsys.evaluate.theme import page

logger = logging.getLogger(__name__)

PAGE_FILE, JSON_FILE, MARKDOWN_FILE, FIGURE_FILE = "pareto.html", "pareto.json", "pareto.md", "pareto.svg"

ZOOM_SHARE = 0.25
"""The second figure shows this share of the range of test AUC, from the top."""

LOSS = 0.001
"""Loss of validation AUC against the uncompressed tables that the summary calls small."""

PAGE_CSS = """
.wide-figure { overflow-x: auto; }
.wide-figure svg { min-width: 760px; }
td.code { max-width: none; }
td.code code { font-size: 12px; user-select: all; }
td.long { white-space: normal; min-width: 340px; max-width: 560px; }
tr.on td { background: var(--soft); }
pre { font-size: 12.5px; white-space: pre-wrap; overflow-wrap: anywhere; margin: 12px 0 0; user-select: all; }
"""

PAGE_SCRIPT = """
const figures = [...document.querySelectorAll("svg.pareto")], rows = [...document.querySelectorAll("#points tbody tr")];
let pinned = "";
const light = method => {
  figures.forEach(figure => {
    figure.classList.toggle("lit", method !== "");
    figure.querySelectorAll(".series").forEach(one => one.classList.toggle("on", one.dataset.method === method));
  });
};
const pin = method => {
  pinned = pinned === method ? "" : method;
  rows.forEach(row => row.classList.toggle("on", pinned !== "" && row.cells[0].textContent === pinned));
  light(pinned);
};
figures.forEach(figure => figure.querySelectorAll(".series").forEach(one => {
  one.addEventListener("pointerenter", () => light(one.dataset.method));
  one.addEventListener("pointerleave", () => light(pinned));
  one.addEventListener("click", () => pin(one.dataset.method));
  one.addEventListener("keydown", event => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pin(one.dataset.method); }
  });
}));
rows.forEach(row => row.addEventListener("click", () => pin(row.cells[0].textContent)));
"""


def write_sweep(sweep: Sweep, folder: Path) -> None:
    """Write page, numbers, Markdown and, once there is a point, the figure; each file appears whole.

    Args:
        sweep: what is known by now.
        folder: where; files of these names are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = points(sweep.results)
    chosen = choices(found, sweep.ratios, sweep.full_bytes)
    _put(folder / PAGE_FILE, render_sweep(sweep))
    _put(folder / JSON_FILE, json.dumps(as_json(sweep), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    lines = [markdown(sweep, found, chosen).rstrip(), *search_markdown(sweep.searches)]
    _put(folder / MARKDOWN_FILE, "\n".join(lines) + "\n")
    if found:
        _put(folder / FIGURE_FILE, standalone(_figure("all", sweep, found)))


def render_sweep(sweep: Sweep) -> str:
    """Return the page: one HTML file that loads nothing."""
    found = points(sweep.results)
    chosen = choices(found, sweep.ratios, sweep.full_bytes)
    parts = [
        f'<div class="kicker">Embedding compression</div><h1>{sections.text(sweep.title)}</h1>',
        f'<p class="lead">{sections.text(lead(sweep, found))}</p>',
        sections.facts(dict(sweep.facts)),
        f"<pre>{sections.text(sweep.command)}</pre>",
        _figures(sweep, found),
        _choices(chosen, found),
        _points(sweep, found),
        search_section(sweep.searches),
        _refusals(sweep),
        _failures(sweep),
        _details(sweep),
        f"<h2>How to read this</h2>{_terms(sweep)}",
    ]
    title, css = sections.text(sweep.title), FIGURE_CSS + PAGE_CSS + SEARCH_CSS
    return page(title, "compression", "".join(parts), css=css, script=PAGE_SCRIPT)


def lead(sweep: Sweep, found: list[Point]) -> str:
    """What the sweep shows in one or two sentences."""
    missing = sweep.num_cells - len(sweep.results)
    so_far = f" So far {len(sweep.results)} of {sweep.num_cells} runs are done." if missing else ""
    so_far += f" {len(sweep.failures)} failed." if sweep.failures else ""
    if not found:
        return f"No cell is done yet.{so_far}"
    full = baseline(found)
    methods = len({point.method for point in found})
    sentence = f"{methods} methods at {len(found)} points, {len(sweep.results)} runs."
    if full is None:
        return sentence + so_far
    # On validation: of many points some are close on test by luck.
    known = full.validation_auc
    close = [p for p in comparable(found) if p.validation_auc >= known - LOSS and p.method != full.method]
    if not close:
        return f"{sentence} No method stays within {LOSS} of the uncompressed validation AUC of {known:.4f}.{so_far}"
    least = min(close, key=lambda p: p.plan_bytes)
    return (
        f"{sentence} The fewest bytes within {LOSS} of the uncompressed validation AUC of {known:.4f}: "
        f"{least.method} with {least.plan_bytes:,} bytes, {sweep.full_bytes / least.plan_bytes:.1f} times less; "
        f"its test AUC is {least.test_auc:.4f}, uncompressed {full.test_auc:.4f}.{so_far}"
    )


def _figure(name: str, sweep: Sweep, found: list[Point], bottom: float | None = None) -> str:
    return pareto_figure(name, found, full_bytes=sweep.full_bytes, ratios=sweep.ratios, bottom=bottom)


def _figures(sweep: Sweep, found: list[Point]) -> str:
    if not found:
        return ""
    caption = (
        "Means over seeds; whiskers reach from the lowest to the highest. Ringed points and the broad line are the "
        "frontier: no point of at most their bytes has a better validation AUC; heights are test AUC. Point at a "
        "method, or choose it, to light it up."
    )
    boxes = [_box("All points", caption, _figure("all", sweep, found))]
    low, high = min(point.test_auc for point in found), max(point.test_auc for point in found)
    near = [point for point in found if point.test_auc >= high - ZOOM_SHARE * (high - low)]
    if 2 <= len(near) < len(found):
        svg = _figure("near", sweep, found, min(point.test_auc for point in near))
        boxes.append(_box("Near the top", f"The best {ZOOM_SHARE:.0%} of the range above.", svg))
    return f'<h2>Test AUC against serving bytes</h2><div class="grid">{"".join(boxes)}</div>'


def _box(title: str, caption: str, svg: str) -> str:
    heading = f"<h3>{title}</h3><figcaption>{caption}</figcaption>"
    return f'<figure class="box">{heading}<div class="wide-figure">{svg}</div></figure>'


def _choices(chosen: list[Choice], found: list[Point]) -> str:
    if not chosen:
        return ""
    note = "Best validation AUC among all points that fit, whatever budget they aimed at. Test AUC had no say."
    return f'<h2>What to take at each budget</h2><p class="note">{note}</p>{choice_table(chosen, baseline(found))}'


def _points(sweep: Sweep, found: list[Point]) -> str:
    if not found:
        return ""
    note = rising_note(sweep.trials)
    told = f'<p class="note">{sections.text(note)}</p>' if note else ""
    return f"<h2>Every method at every budget</h2>{told}{point_table(found, sweep.full_bytes)}"


def _refusals(sweep: Sweep) -> str:
    if not sweep.refusals:
        return ""
    note = "Refused before any training: even the smallest plan of the method is above the budget."
    table = refusal_table(sweep.refusals, sweep.full_bytes)
    return f'<h2>Budgets that a method cannot meet</h2><p class="note">{note}</p>{table}'


def _failures(sweep: Sweep) -> str:
    if not sweep.failures:
        return ""
    note = "The sweep went on without them; the same command tries them again."
    return f'<h2>Cells that failed</h2><p class="note">{note}</p>{failure_table(sweep.failures)}'


def _details(sweep: Sweep) -> str:
    if not sweep.results:
        return ""
    note = "One row for each method, budget and seed, with the command that repeats it."
    cells = f'<h2>Every cell</h2><p class="note">{note}</p>{cell_table(sweep.results)}'
    if not sweep.trials:
        return cells
    summary = f"<summary>All {len(sweep.trials)} trials at the first seed</summary>"
    return f"{cells}<details>{summary}{trial_table(sweep.trials)}</details>"


def _terms(sweep: Sweep) -> str:
    rest = max((abs(r.file_bytes - r.plan_bytes - r.other_bytes) for r in sweep.results), default=0)
    terms = {
        "Plan bytes": "All embeddings as served: tables, codes, pointers, index arrays, projections, hash networks, at "
        "their stored type. What budgets bound, and the only bytes in the figures.",
        "File bytes": "The exported model.pt: the plan, the dense part, vocabularies, and code, which is at most "
        f"{rest:,} bytes here.",
        "Peak train RSS": "Largest resident memory of the process that trained, libraries included; the largest of the "
        "seeds. A method that is small when served may be large in training.",
        "Budget": "Uncompressed float32 bytes divided by it. Where several budgets give a method the same plan, the "
        "smallest stands for all.",
        "Validation AUC": "Of what is served, after freezing. Trials, epochs and choices look at this one alone.",
        "Test AUC": "Mean over seeds, of what is served; sd is the standard deviation over seeds.",
        "Log loss": "Mean negative log likelihood of the test labels in nats.",
        "Train rows/s": "Rows a second of training steps, median over seeds; of the shared training where methods "
        "differ only in what they serve.",
        "Latency": f"Median of one request of {sweep.request_rows} rows to the exported file, on one thread; all files "
        "one after the other in one process, when nothing else of the sweep ran.",
        "Trials": f"{sweep.num_trials} for each method and budget at the first seed, chosen on validation AUC; the "
        "others use the chosen one.",
        "Frontier": "Described on test means: neighbours closer than their spread may change places with other seeds. "
        "Points with fewer seeds than others are left out of it, and of the choices.",
    }
    items = "".join(f"<dt>{name}</dt><dd>{sections.text(meaning)}</dd>" for name, meaning in terms.items())
    return f'<dl class="terms">{items}</dl>'


def _put(path: Path, content: str) -> None:
    """Write a file that appears whole: readers may look while the sweep runs."""
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(content, encoding="utf-8")
    aside.replace(path)
