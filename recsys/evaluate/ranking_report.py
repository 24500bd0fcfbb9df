"""Report of a full ranking: metrics with intervals over users, users by what they had met; page, numbers, Markdown."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from recsys.evaluate import figures, sections
from recsys.evaluate.intervals import Z
from recsys.evaluate.metric_tables import table
from recsys.evaluate.report import METRICS_FILE, REPORT_FILE, dump
from recsys.evaluate.result import Interval
from recsys.evaluate.sections import Fact, cell, text
from recsys.evaluate.theme import page
from recsys.metrics import MetricValue

logger = logging.getLogger(__name__)

MARKDOWN_FILE = "report.md"
NUM_GROUPS = 4  # of users, by how much they had met
LABELS = {"recall": "Recall", "ndcg": "NDCG", "hit": "Hit rate", "precision": "Precision", "map": "MAP"}

TERMS = {
    "Full ranking": "Every item that the user has not met is ranked, none are sampled. Items met in train or "
    "validation are left out of lists. Equal scores: the more frequent item first.",
    "Recall@K": "Share of a user's test items that the first K places hold; mean over users.",
    "NDCG@K": "Sum of 1 / log2(place + 1) over test items found, by the best possible sum: min(test items, K) ones.",
    "Hit rate@K": "Share of users whose first K places hold at least one test item.",
    "MAP@K": "Precision at each test item found, summed, by min(test items, K); mean over users.",
    "Coverage@K": "Share of all items that train knows that at least one list shows.",
    "95% interval": "Mean ± 1.96 standard errors over users: other users, the same training. It does not hold what "
    "another seed changes.",
    "Users without test items": "In no mean: they have nothing to find.",
    "Unknown to train": "Test items that train never met count as missed; users that train never met are in no mean.",
}


@dataclass(frozen=True, kw_only=True)
class RankingEvaluation:
    """What a test found."""

    values: Mapping[str, Tensor]  # float64 (U,) by name, such as recall_at_20
    coverage: Mapping[str, MetricValue]
    num_relevant: Tensor  # int64 (U,), test items of each user
    num_history: Tensor  # int64 (U,), items that each had met
    num_cold_pairs: int  # test pairs of users without an id
    num_unknown_items: int  # test pairs of items without an id
    history: Sequence[Mapping[str, float]] = field(default_factory=tuple)  # of training, by epoch


def write_ranking(evaluation: RankingEvaluation, folder: Path, context: Mapping[str, Fact]) -> None:
    """Write `metrics.json`, `report.html` and `report.md` into an existing folder.

    Args:
        evaluation: of the test.
        folder: where; files of these names are replaced.
        context: facts of the run in the order to show them, `model` and `dataset` among them.
    """
    dump(folder / METRICS_FILE, flat(evaluation) | {f"context.{key}": value for key, value in context.items()})
    (folder / MARKDOWN_FILE).write_text(markdown(evaluation, context), encoding="utf-8")
    shown = render(evaluation, context)
    (folder / REPORT_FILE).write_text(shown, encoding="utf-8")
    logger.info("wrote %s (%.0f KiB): %s", REPORT_FILE, len(shown.encode()) / 1024, lead(evaluation))


def flat(evaluation: RankingEvaluation) -> dict[str, Fact]:
    """Name to number, with the ends of intervals; an undefined metric is None beside its reason."""
    found: dict[str, Fact] = {
        "num_users": evaluation.num_relevant.numel(),
        "num_pairs": int(evaluation.num_relevant.sum()),
        "num_cold_pairs": evaluation.num_cold_pairs,
        "num_unknown_item_pairs": evaluation.num_unknown_items,
    }
    for name, value, interval in _metrics(evaluation):
        for key, each in ((name, value), (f"{name}.low", interval.low), (f"{name}.high", interval.high)):
            found[key] = each.value
            if each.value is None:
                found[f"{key}.undefined_reason"] = each.undefined_reason
    return found


def mean_with_interval(values: Tensor) -> tuple[MetricValue, Interval]:
    """Mean over users and its 95% interval, values float64 (U,)."""
    count = values.numel()
    if not count:
        reason = "no user has a test item"
        return MetricValue.undefined(reason), Interval.undefined(reason)
    mean = float(values.mean())
    if count == 1:
        return MetricValue.of(mean), Interval.undefined("one user has no spread")
    half = Z * float(values.std()) / math.sqrt(count)
    return MetricValue.of(mean), Interval(
        low=MetricValue.of(mean - half), high=MetricValue.of(mean + half), method="mean over users"
    )


def _metrics(evaluation: RankingEvaluation) -> Iterator[tuple[str, MetricValue, Interval]]:
    for name, values in evaluation.values.items():
        yield name, *mean_with_interval(values)
    nothing = Interval.undefined("coverage is of all lists together")
    for name, value in evaluation.coverage.items():
        yield name, value, nothing


def label(name: str) -> str:
    """`recall_at_20` as Recall@20."""
    kind, _, k = name.partition("_at_")
    return f"{LABELS.get(kind, kind.capitalize())}@{k}"


def lead(evaluation: RankingEvaluation) -> str:
    """One sentence: over whom, and the first numbers."""
    shown = [
        f"{label(name)} {value.value:.4f}"
        for name, value, _ in _metrics(evaluation)
        if value.value is not None and name.partition("_")[0] in ("recall", "ndcg")
    ]
    users, pairs = evaluation.num_relevant.numel(), int(evaluation.num_relevant.sum())
    return f"{users:,} users, {pairs:,} test pairs, ranked against all items: {', '.join(shown) or 'nothing to rank'}."


def _rows(evaluation: RankingEvaluation) -> list[str]:
    return [
        f'<tr><td class="text">{text(label(name))}</td>{cell(value, ".5f")}{cell(interval.low, ".5f")}'
        f"{cell(interval.high, '.5f')}</tr>"
        for name, value, interval in _metrics(evaluation)
    ]


def groups(evaluation: RankingEvaluation) -> list[tuple[str, Tensor]]:
    """Quarters of users by how much they had met: (range, positions of the users)."""
    met = evaluation.num_history
    if not met.numel():
        return []
    order = torch.argsort(met, stable=True)
    parts = [part for part in order.tensor_split(NUM_GROUPS) if part.numel()]
    return [(f"{int(met[part[0]])} – {int(met[part[-1]])}", part) for part in parts]


def _group_rows(evaluation: RankingEvaluation) -> list[str]:
    rows = []
    for name, part in groups(evaluation):
        means = "".join(cell(mean_with_interval(values[part])[0], ".5f") for values in evaluation.values.values())
        count = f'<td data-sort="{part.numel()}">{part.numel():,}</td>'
        rows.append(f'<tr><td class="text">{text(name)}</td>{count}{means}</tr>')
    return rows


def render(evaluation: RankingEvaluation, context: Mapping[str, Fact]) -> str:
    """Return the page: one HTML file, figures inline, nothing loaded from anywhere."""
    title = text(f"{context.get('model')} on {context.get('dataset')}")
    names = ["items met", "users", *(label(name) for name in evaluation.values)]
    items = "".join(f"<dt>{name}</dt><dd>{text(meaning)}</dd>" for name, meaning in TERMS.items())
    parts = [
        f'<div class="kicker">Full ranking of the test split</div><h1>{title}</h1>',
        f'<p class="lead">{text(lead(evaluation))}</p>',
        sections.facts({key: value for key, value in context.items() if key not in ("model", "dataset")}),
        "<h2>All metrics</h2>",
        *(f'<p class="note">{text(note)}</p>' for note in _notes(evaluation)),
        table(("metric", "mean", "95% low", "high"), _rows(evaluation)),
        "<h2>Users by what they had met</h2>",
        table(names, _group_rows(evaluation)),
        _training(evaluation.history),
        f'<h2>How to read this</h2><dl class="terms">{items}</dl>',
    ]
    return page(title, "ranking", "".join(parts))


def _notes(evaluation: RankingEvaluation) -> list[str]:
    notes = []
    if evaluation.num_unknown_items:
        notes.append(
            f"{evaluation.num_unknown_items:,} test pairs are of items unknown to train: they count as missed."
        )
    if evaluation.num_cold_pairs:
        notes.append(f"{evaluation.num_cold_pairs:,} test pairs are of users unknown to train: they are in no mean.")
    return notes


def _training(history: Sequence[Mapping[str, float]]) -> str:
    keys = [key for key in (history[0] if history else {}) if key.startswith("validation_recall")]
    if not history:
        return ""
    key = keys[0] if keys else "validation_recall"
    shown = f"validation {label(key.removeprefix('validation_'))}" if keys else "no validation"
    svg = figures.training_figure([dict(row) for row in history], key=key, label=shown)
    figure = sections.figure(svg, "Loss and validation by epoch", "Validation pairs are carved out of train.")
    return f'<h2>Training</h2><div class="grid">{figure}</div>'


def markdown(evaluation: RankingEvaluation, context: Mapping[str, Fact]) -> str:
    """The facts and the table of metrics."""
    lines = [f"# {context.get('model')} on {context.get('dataset')}", "", lead(evaluation), ""]
    lines += [f"- {key}: {value}" for key, value in context.items()]
    lines += ["", *_notes(evaluation), "", "| metric | mean | 95% interval |", "|---|---|---|"]
    for name, value, interval in _metrics(evaluation):
        mean = "undefined" if value.value is None else f"{value.value:.5f}"
        ends = "–" if interval.low.value is None else f"{interval.low.value:.5f} … {interval.high.value:.5f}"
        lines.append(f"| {label(name)} | {mean} | {ends} |")
    return "\n".join(lines) + "\n"
