"""A comparison as one self-contained page, as numbers and as Markdown."""

import json
import logging
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

from recsys.core.jsonable import to_json
from recsys.evaluate import sections
from recsys.evaluate.compare_config import NUMBER_METRICS, SLICE_METRICS
from recsys.evaluate.compare_figures import differences_figure, seeds_figure, slices_figure
from recsys.evaluate.compare_markdown import markdown
from recsys.evaluate.compare_tables import cost_table, overall_table, slice_table
from recsys.evaluate.compare_words import LABELS, lead, sentences, title
from recsys.evaluate.compared import Comparison
from recsys.evaluate.theme import page

logger = logging.getLogger(__name__)

PAGE_FILE, JSON_FILE, MARKDOWN_FILE = "compare.html", "compare.json", "compare.md"

PAGE_CSS = """
.verdict h3 { font-size: 15px; margin-bottom: 6px; overflow-wrap: anywhere; }
.verdict p + p { margin-top: 8px; color: var(--muted); font-size: 14px; }
.better { color: var(--first); font-weight: 600; }
.worse { color: var(--second); font-weight: 600; }
td.text.name { min-width: 190px; max-width: 340px; white-space: normal; overflow-wrap: anywhere; }
"""


def write_comparison(comparison: Comparison, folder: Path, facts: Mapping[str, str]) -> None:
    """Write `compare.html`, `compare.json` and `compare.md` into an existing folder.

    Args:
        comparison: what `compare` returned, with costs and notes.
        folder: where; files of these names are replaced.
        facts: of the data and the runs, in the order to show them.
    """
    values = {"facts": dict(facts), "verdicts": {c.name: sentences(comparison, c) for c in comparison.candidates}}
    text = json.dumps(values | to_json(comparison), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / JSON_FILE).write_text(text + "\n", encoding="utf-8")
    (folder / MARKDOWN_FILE).write_text(markdown(comparison, facts), encoding="utf-8")
    shown = render_comparison(comparison, facts)
    (folder / PAGE_FILE).write_text(shown, encoding="utf-8")
    logger.info("wrote %s (%.0f KiB)", PAGE_FILE, len(shown.encode()) / 1024)


def render_comparison(comparison: Comparison, facts: Mapping[str, str]) -> str:
    """Return the page: one HTML file, figures inline, nothing loaded from anywhere."""
    heading = sections.text(title(comparison))
    parts = [
        f'<div class="kicker">Paired comparison</div><h1>{heading}</h1>',
        f'<p class="lead">{sections.text(lead(comparison))}</p>',
        *(f'<p class="note">{sections.text(note)}</p>' for note in comparison.notes),
        sections.facts(dict(facts)),
        _verdicts(comparison),
        _differences(comparison),
        _slices(comparison),
        _costs(comparison),
        f"<h2>How to read this</h2>{_terms(comparison)}",
    ]
    return page(heading, "comparison", "".join(parts), css=PAGE_CSS)


def _verdicts(comparison: Comparison) -> str:
    boxes = []
    for candidate in comparison.candidates:
        verdict = comparison.primary(candidate).verdict
        said = "".join(f"<p>{sections.text(sentence)}</p>" for sentence in sentences(comparison, candidate))
        word = f'<span class="{verdict.name.lower()}">{verdict.value}</span>'
        boxes.append(f'<div class="box verdict"><h3>{sections.text(candidate.name)}: {word}</h3>{said}</div>')
    return f'<h2>Verdict</h2><div class="grid">{"".join(boxes)}</div>'


def _differences(comparison: Comparison) -> str:
    boxes = []
    if any(d.low.defined for d in comparison.overall):
        caption = (
            f"Candidate minus baseline with {comparison.level:.0%} intervals, each for itself; coloured where a "
            "difference is shown after correction. The band is the margin."
        )
        boxes.append(sections.figure(differences_figure(comparison), "Differences", caption, wide=True))
    if any(len(method.runs) > 1 for method in comparison.methods):
        caption = f"{LABELS[comparison.metric]} of every run; the stroke is the mean of its method."
        boxes.append(sections.figure(seeds_figure(comparison), "Runs by method", caption, wide=True))
    figures = f'<div class="grid">{"".join(boxes)}</div>' if boxes else ""
    return f"<h2>All rows</h2>{figures}{overall_table(comparison)}"


def _slices(comparison: Comparison) -> str:
    if not comparison.slices:
        return ""
    note = (
        f"Benjamini-Hochberg over all {sum(d.p_value.defined for d in comparison.slices)} tests of slices: of those "
        f"marked, at most {1 - comparison.level:.0%} are expected to be false. The vertical line is the "
        "difference of all rows."
    )
    boxes = []
    told = (*SLICE_METRICS, *NUMBER_METRICS)
    metric = comparison.metric if comparison.metric in told else SLICE_METRICS[0]
    mine = [d for d in comparison.slices if d.metric is metric]
    ordered = sorted(mine, key=lambda d: (_order(comparison, d.candidate), d.column))  # stable: slices keep theirs
    for number, ((candidate, column), group) in enumerate(groupby(ordered, key=lambda d: (d.candidate, d.column))):
        found = list(group)
        if any(d.low.defined for d in found):
            overall = next(d for d in comparison.overall if d.candidate == candidate and d.metric is metric)
            svg = slices_figure(f"slice-{number}", found, overall, comparison.margin.get(metric.value, 0.0))
            boxes.append(sections.figure(svg, f"{LABELS[metric]} by {column}", candidate))
    shown = f'<div class="masonry">{"".join(boxes)}</div>' if boxes else ""
    return f'<h2>Slices</h2><p class="note">{note}</p>{shown}{slice_table(comparison)}'


def _order(comparison: Comparison, candidate: str) -> int:
    return [method.name for method in comparison.candidates].index(candidate)


def _costs(comparison: Comparison) -> str:
    if not comparison.costs:
        return ""
    note = "As each run recorded it, median over its seeds; speeds of runs on other or busy machines do not compare."
    return f'<h2>What it costs</h2><p class="note">{note}</p>{cost_table(comparison)}'


def _terms(comparison: Comparison) -> str:
    dependent = f"of one {comparison.group_key}" if comparison.group_key else "(none: no group_key was given)"
    level = f"{1 - comparison.level:.0%}"
    terms = {
        "Paired": "Every difference is taken on the same rows, so that what makes rows easy or hard for all cancels.",
        "Rows that depend on each other": f"Rows {dependent} count as one draw: resampled together, and summed before "
        "their variance is taken.",
        "Row error": "Standard error over other samples of such rows. AUC: DeLong, for groups after Obuchowski; the "
        "other metrics: standard deviation of the difference over bootstrap replicates of the groups.",
        "Seed error": "Standard error over other seeds, from the spread of the runs of each method. It holds a part of "
        "the row error once more, so it is rather too large than too small.",
        "Interval, p": "From both errors together, by Student's t with the degrees of freedom of Welch and "
        "Satterthwaite: three seeds do not say much of their spread, and intervals show that.",
        "Adjusted p": f"Holm over candidates for {LABELS[comparison.metric]}, which the verdict is about, and over "
        f"candidates and metrics for the rest: the chance of even one false finding in each stays below {level}. "
        "Slices: Benjamini-Hochberg, because there are many and each finding is one to look into.",
        "Detectable": "Difference that a sample of this size would have shown with 80% power. What is smaller may be "
        "there and be missed.",
        "Margin": "Smallest difference that was said to matter (compare.margin). An interval within it shows that no "
        "difference of that size is there; failing to show a difference does not.",
        "Calibration gap": "|mean prediction / mean label − 1|. Its tests are cautious: near 0 they find less than "
        "they might.",
        "These rows": "All of this is about rows like those of the test split. Whether it holds on later days, or for "
        "what users see once the model chooses it, only an experiment with them can show.",
    }
    items = "".join(f"<dt>{name}</dt><dd>{sections.text(meaning)}</dd>" for name, meaning in terms.items())
    return f'<dl class="terms">{items}</dl>'
