"""A comparison as Markdown: what a pull request or a README takes."""

import re
from collections.abc import Mapping, Sequence

from recsys.evaluate.compare_words import COSTS, LABELS, lead, sentences, shown_p, signed, title
from recsys.evaluate.compared import Comparison, Difference, Verdict
from recsys.metrics import MetricValue


def markdown(comparison: Comparison, facts: Mapping[str, str]) -> str:
    """Verdicts, the table of all rows, the slices that differ, and the costs."""
    lines = [f"# {_plain(title(comparison))}", "", _plain(lead(comparison)), ""]
    lines += [f"- {_plain(key)}: {_plain(value)}" for key, value in facts.items()]
    lines += ["", *(_plain(note) for note in comparison.notes)]
    for candidate in comparison.candidates:
        lines += ["", f"## {_plain(candidate.name)}: {comparison.primary(candidate).verdict.value}", ""]
        lines += [f"- {_plain(sentence)}" for sentence in sentences(comparison, candidate)]
    lines += ["", "## All rows", "", *_tests(comparison.overall, slices=False)]
    found = [d for d in comparison.slices if d.verdict in (Verdict.BETTER, Verdict.WORSE)]
    if found:
        lines += ["", "## Slices that differ, after Benjamini-Hochberg", "", *_tests(found, slices=True)]
    if comparison.costs:
        lines += ["", "## Costs", "", *_costs(comparison)]
    return "\n".join(lines) + "\n"


def _tests(found: Sequence[Difference], *, slices: bool) -> list[str]:
    heads = (["slice", "rows"] if slices else []) + ["candidate", "metric", "baseline", "candidate's", "difference"]
    rows = [
        [
            *([f"{d.column}={d.value}", f"{d.num_rows:,}"] if slices else []),
            d.candidate,
            LABELS[d.metric],
            _number(d.baseline_values.mean),
            _number(d.candidate_values.mean),
            _signed(d.difference),
            f"{_signed(d.low)} … {_signed(d.high)}",
            shown_p(d.adjusted_p),
            _number(d.detectable),
            d.verdict.value,
        ]
        for d in found
    ]
    return _table([*heads, "interval", "adjusted p", "detectable", "verdict"], rows)


def _costs(comparison: Comparison) -> list[str]:
    rows = []
    for cost in comparison.costs:
        values: list[float | None] = [getattr(cost, field) for field in COSTS]
        forms = [",.2f" if field == "latency_ms" else ",.0f" for field in COSTS]
        shown = ["unknown" if v is None else f"{v:{form}}" for v, form in zip(values, forms, strict=True)]
        rows.append([cost.method, *shown])
    return _table(["method", *(label for label, _, _ in COSTS.values())], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(_plain(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines]


def _number(value: MetricValue) -> str:
    return "undefined" if value.value is None else f"{value.value:.5f}"


def _signed(value: MetricValue) -> str:
    return "undefined" if value.value is None else signed(value.value)


def _plain(value: str) -> str:
    """Text on one line that Markdown does not take for HTML."""
    raw = "".join(character if character.isprintable() else "·" for character in value)
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", raw)
