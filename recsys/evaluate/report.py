"""Writing an evaluation: numbers for machines, one self-contained page for people."""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from recsys.core.jsonable import to_json
from recsys.evaluate import figures, metric_tables, sections
from recsys.evaluate.checks_section import checks_section
from recsys.evaluate.data_checks import DataChecks
from recsys.evaluate.number_result import NumberSlice
from recsys.evaluate.result import Contrast, Evaluation, Interval, Metrics, SliceRow
from recsys.evaluate.sections import Fact
from recsys.evaluate.theme import page

logger = logging.getLogger(__name__)

SliceT = TypeVar("SliceT", SliceRow, NumberSlice)

METRICS_FILE, SLICES_FILE, RELIABILITY_FILE, REPORT_FILE = (
    "metrics.json",
    "slices.json",
    "reliability.json",
    "report.html",
)
CHECKS_FILE, CALIBRATION_FILE, POLICIES_FILE = "data_checks.json", "calibration_effect.json", "policies.json"


def write(
    evaluation: Evaluation,
    folder: Path,
    context: Mapping[str, Fact],
    *,
    history: Sequence[Mapping[str, float | None]] = (),
    checks: DataChecks | None = None,
) -> None:
    """Write `metrics.json`, `slices.json`, `reliability.json` and `report.html` into an existing folder.

    Where there is such a thing, `data_checks.json`, `calibration_effect.json` and `policies.json`, too.

    Args:
        evaluation: what `evaluate` returned.
        folder: where; files of these names are replaced.
        context: facts of the run in the order to show them: dataset, model, plan, embedding_bytes, seed, commit, ...
        history: one mapping per epoch: epoch, train_loss, validation_log_loss, validation_auc, learning_rate; any of
            them but `epoch` may be absent, None or NaN.
        checks: of the data that was evaluated.
    """
    dump(folder / METRICS_FILE, flat_metrics(evaluation) | {f"context.{key}": finite(v) for key, v in context.items()})
    slices = [
        {"column": row.column, "value": row.value, "num_rows": row.num_rows, "num_positives": row.num_positives}
        | flat(row.metrics)
        | flat({f"versus_rest.{name}": getattr(row.versus_rest, name) for name in Contrast.__dataclass_fields__})
        for row in evaluation.slices
    ]
    dump(folder / SLICES_FILE, slices)
    dump(folder / RELIABILITY_FILE, to_json(evaluation.reliability))
    extra = {CHECKS_FILE: checks, CALIBRATION_FILE: evaluation.calibration, POLICIES_FILE: evaluation.policies or None}
    for name, value in extra.items():
        if value is not None:
            dump(folder / name, to_json(value))
    write_page(folder, render(evaluation, context, history=history, checks=checks))


def write_page(folder: Path, shown: str) -> None:
    """Write `report.html`."""
    (folder / REPORT_FILE).write_text(shown, encoding="utf-8")
    # Without the folder: a stage renames it when it is whole, and says then where it is.
    logger.info("wrote %s (%.0f KiB)", REPORT_FILE, len(shown.encode()) / 1024)


def flat_metrics(evaluation: Evaluation) -> dict[str, Fact]:
    """Name to number; an undefined metric is None beside `<name>.undefined_reason`. Every value is valid JSON.

    Ends of the 95% intervals are `<name>.low` and `<name>.high`, and how they were found is `<name>.interval`.
    """
    counts: dict[str, Fact] = {"num_rows": evaluation.num_rows, "num_positives": evaluation.num_positives}
    counts |= {} if evaluation.weight is None else {"weight": evaluation.weight}
    return counts | flat(evaluation.metrics) | flat_intervals(evaluation.intervals)


def flat_intervals(intervals: Mapping[str, Interval]) -> dict[str, Fact]:
    """`<name>.low` and `<name>.high` as `flat` has them, and how the interval was found as `<name>.interval`."""
    found: dict[str, Fact] = {}
    for name, interval in intervals.items():
        found |= flat({f"{name}.low": interval.low, f"{name}.high": interval.high})
        found |= {f"{name}.interval": interval.method} if interval.method else {}
    return found


def render(
    evaluation: Evaluation,
    context: Mapping[str, Fact],
    *,
    history: Sequence[Mapping[str, float | None]] = (),
    checks: DataChecks | None = None,
) -> str:
    """Return the page: one HTML file, figures inline, nothing loaded from anywhere."""
    parts = [
        sections.cards(evaluation),
        _all_metrics(evaluation),
        _curves(evaluation),
        _calibration(evaluation),
        _slices(evaluation),
        _policies(evaluation),
        _training(history),
        f"<h2>How to read this</h2>{sections.terms()}",
    ]
    return framed(context, sections.lead(evaluation), checks, parts)


def framed(context: Mapping[str, Fact], lead: str, checks: DataChecks | None, parts: Sequence[str]) -> str:
    """The page of an evaluation: title, lead, the run's facts, what the data checks found, then these parts."""
    title = " on ".join(str(context[key]) for key in ("model", "dataset") if context.get(key)) or "Predictions"
    head = [
        f'<div class="kicker">Offline evaluation</div><h1>{sections.text(title)}</h1>',
        f'<p class="lead">{sections.text(lead)}</p>',
        sections.facts({key: value for key, value in context.items() if key not in ("model", "dataset")}),
        "" if checks is None else checks_section(checks),
    ]
    return page(sections.text(title), "evaluation", "".join([*head, *parts]))


def _all_metrics(evaluation: Evaluation) -> str:
    if evaluation.num_rows == 0:
        return ""
    note = f'<p class="note">{sections.text(metric_tables.sample(evaluation))}.</p>'
    return f"<h2>All metrics</h2>{note}{metric_tables.metric_table(evaluation)}"


def _calibration(evaluation: Evaluation) -> str:
    if evaluation.calibration is None:
        return ""
    note = f"Map: {evaluation.calibration.name}. Both columns are of the rows of this report."
    table = metric_tables.calibration_table(evaluation.calibration)
    return f'<h2>Calibration map</h2><p class="note">{sections.text(note)}</p>{table}'


def _policies(evaluation: Evaluation) -> str:
    if not evaluation.policies:
        return ""
    note = (
        "What the target policy would have earned per row, from the logged probabilities of its actions. A mean weight "
        "far from 1 says that these are wrong or do not cover the target; few effective rows, that little speaks for "
        "the value."
    )
    table = metric_tables.policy_table(evaluation.policies)
    return f'<h2>Counterfactual value</h2><p class="note">{note}</p>{table}'


def _curves(evaluation: Evaluation) -> str:
    boxes = []
    if evaluation.reliability:
        svg = figures.reliability_figure(evaluation.reliability)
        caption = "Points on the dashed line are calibrated; bars are 95% intervals of the observed rate."
        boxes.append(sections.figure(svg, "Reliability", caption))
    if evaluation.roc.false_rate:
        svg = figures.roc_figure(evaluation.roc, evaluation.metrics["auc"])
        boxes.append(
            sections.figure(svg, "Ranking (ROC)", "Share of positives found against share of negatives let in.")
        )
    if evaluation.gain.rows:
        svg = figures.gain_figure(evaluation.gain, evaluation.metrics["positive_rate"].value_or(0))
        caption = "Share of all positives among the rows that score highest; lift is the ratio of the two."
        boxes.append(sections.figure(svg, "Gain", caption, wide=True))
    if evaluation.histogram.edges:
        svg = figures.histogram_figure(evaluation.histogram)
        caption = "The further apart the two classes lie, the better the model tells them apart."
        boxes.append(sections.figure(svg, "Scores by label", caption, wide=True))
    if not boxes:
        return ""
    table = sections.bins_table(evaluation.reliability)
    return f'<h2>Calibration and ranking</h2><div class="grid halves">{"".join(boxes)}</div>{table}'


def _slices(evaluation: Evaluation) -> str:
    if not evaluation.slices:
        return ""
    overall = evaluation.metrics["auc"]
    caption = "Bars start at chance and carry 95% intervals; the line is the AUC of all rows."
    boxes = slice_boxes(
        evaluation.slices, "auc", "AUC", caption, lambda name, rows: figures.slice_figure(name, rows, overall)
    )
    table = sections.slice_table(evaluation.slices, overall)
    note = "A slice's AUC compares rows within that slice only, so all slices may lie below the overall value."
    return f'<h2>Slices</h2><p class="note">{note}</p><div class="masonry">{boxes}</div>{table}'


def slice_boxes(
    slices: Sequence[SliceT], metric: str, title: str, caption: str, draw: Callable[[str, Sequence[SliceT]], str]
) -> str:
    """A figure for each sliced column that has a slice where the metric, which `title` names, is defined."""
    boxes = []
    for index, (column, rows) in enumerate(groupby(slices, key=lambda row: row.column)):
        shown = list(rows)
        num_undefined = sum(not row.metrics[metric].defined for row in shown)
        told = f" No {title} for {num_undefined} of {len(shown)} slices: the table says why." if num_undefined else ""
        if num_undefined < len(shown):
            boxes.append(sections.figure(draw(f"slice-{index}", shown), column, caption + told))
    return "".join(boxes)


def _training(history: Sequence[Mapping[str, float | None]]) -> str:
    if not history:
        return ""
    rows = [{key: float(value) for key, value in row.items() if value is not None} for row in history]
    caption = (
        "Dotted lines mark where the learning rate changed." if len({r.get("learning_rate") for r in rows}) > 1 else ""
    )
    svg = figures.training_figure(rows)
    return (
        f'<h2>Training</h2><div class="grid">{sections.figure(svg, "Loss and validation AUC by epoch", caption)}</div>'
    )


def flat(metrics: Metrics) -> dict[str, Fact]:
    """Name to number, or to null beside `<name>.undefined_reason`."""
    flat: dict[str, Fact] = {}
    for name, metric in metrics.items():
        flat[name] = metric.value
        if metric.value is None:
            flat[f"{name}.undefined_reason"] = metric.undefined_reason
    return flat


def finite(value: Fact) -> Fact:
    """JSON knows no NaN: a fact without a finite value is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dump(path: Path, value: object) -> None:
    """Write a value as JSON that any reader takes: no NaN."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
