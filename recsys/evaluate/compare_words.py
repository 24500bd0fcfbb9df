"""What may be said of a comparison, in sentences that claim no more than was tested."""

from collections.abc import Iterator

from recsys.evaluate.compare_config import Metric
from recsys.evaluate.compared import Comparison, Cost, Difference, Method, Verdict
from recsys.metrics import MetricValue

LABELS = {
    Metric.AUC: "AUC",
    Metric.GAUC: "GAUC",
    Metric.AVERAGE_PRECISION: "PR-AUC",
    Metric.LOG_LOSS: "log loss",
    Metric.NORMALIZED_ENTROPY: "norm. entropy",
    Metric.CALIBRATION: "calibration gap",
    Metric.RMSE: "RMSE",
    Metric.MAE: "MAE",
}

COSTS = {
    "embedding_bytes": ("bytes of all embeddings as served", "smaller", "larger"),
    "file_bytes": ("bytes of the exported file", "smaller", "larger"),
    "train_rows_per_second": ("training rows/s", "slower", "faster"),
    "latency_ms": ("ms a request", "faster", "slower"),
}
"""Field of `Cost` -> (what it counts, word for a candidate that has less, for one that has more)."""

SIGNIFICANT = (Verdict.BETTER, Verdict.WORSE)
MOST_SLICES = 3  # named in a sentence


def signed(value: float) -> str:
    """A difference with its sign, five digits after the point."""
    return f"{value:+.5f}".replace("-", "−")


def shown_p(value: MetricValue) -> str:
    """A p-value as it is told."""
    if value.value is None:
        return "undefined"
    return "< 0.0001" if value.value < 1e-4 else f"{value.value:.4f}" if value.value < 0.1 else f"{value.value:.2f}"


def title(comparison: Comparison) -> str:
    """What is compared, in a line."""
    names = [candidate.name for candidate in comparison.candidates]
    against = names[0] if len(names) == 1 else f"{len(names)} candidates"
    return f"{against} against {comparison.baseline.name}"


def lead(comparison: Comparison) -> str:
    """The verdicts on the candidates in a sentence or two."""
    label = LABELS[comparison.metric]
    rows = f"On the same {comparison.num_rows:,} rows"
    if comparison.group_key:
        rows += f" of {comparison.num_clusters:,} values of {comparison.group_key}"
    said = [f"{candidate.name}: {comparison.primary(candidate).verdict.value}" for candidate in comparison.candidates]
    if len(said) == 1:
        return f"{rows}: {headline(comparison, comparison.candidates[0])}"
    return f"{rows}, by {label} against {comparison.baseline.name}: {'; '.join(said)}."


def headline(comparison: Comparison, candidate: Method) -> str:
    """The verdict on a candidate by the primary metric."""
    found, name = comparison.primary(candidate), comparison.baseline.name
    label, shown = LABELS[found.metric], _shown(found, comparison)
    if found.verdict is Verdict.UNTESTED:
        return f"No verdict on {candidate.name}: {label} was not tested, because {_reason(found)}."
    if found.verdict is Verdict.IDENTICAL:
        return f"{candidate.name} and {name} have the same {label} ({_value(found)}) in whatever sample of these rows."
    if found.verdict in SIGNIFICANT:
        return f"{label} of {candidate.name} is {found.verdict.value} than that of {name}: {shown}."
    detectable = f"{found.detectable.value_or(0):.5f}"
    if found.verdict is Verdict.EQUIVALENT:
        return (
            f"{label} of {candidate.name} and {name} differ by less than the margin of "
            f"{comparison.margin[found.metric.value]:g}, if at all: {shown}."
        )
    return (
        f"No difference in {label} between {candidate.name} and {name} shown at this sample size: {shown}. With 80% "
        f"power it would have shown a difference of {detectable}; smaller ones, either way, remain possible."
    )


def _shown(found: Difference, comparison: Comparison) -> str:
    low, high = signed(found.low.value_or(0)), signed(found.high.value_or(0))
    p_value = shown_p(found.adjusted_p)
    interval = f"{comparison.level:.0%} interval {low} to {high}"
    if not found.standard_error.defined:
        interval = "the same in whatever sample of these rows; sign test"
    return (
        f"{signed(found.difference.value_or(0))} ({interval}, "
        f"p {p_value if p_value.startswith('<') else '= ' + p_value}"
        f"{' after Holm' if len(comparison.candidates) > 1 else ''})"
    )


def _value(found: Difference) -> str:
    return f"{found.baseline_values.mean.value_or(0):.5f}"


def _reason(found: Difference) -> str:
    return found.difference.undefined_reason or found.standard_error.undefined_reason


def sentences(comparison: Comparison, candidate: Method) -> list[str]:
    """All that is to say of a candidate, the verdict first."""
    found = comparison.primary(candidate)
    said = [
        headline(comparison, candidate),
        margin_sentence(comparison, found),
        seeds_sentence(comparison, candidate),
        others_sentence(comparison, candidate),
        slices_sentence(comparison, candidate),
        cost_sentence(comparison, candidate),
    ]
    return [sentence for sentence in said if sentence]


def margin_sentence(comparison: Comparison, found: Difference) -> str:
    """Whether a difference that was shown matters; empty where none was, or no margin is set."""
    margin = comparison.margin.get(found.metric.value, 0.0)
    if found.verdict not in SIGNIFICANT or margin == 0 or found.low.value is None or found.high.value is None:
        return ""
    smallest, largest = sorted((abs(found.low.value), abs(found.high.value)))
    if found.low.value * found.high.value < 0:
        smallest = 0.0
    if smallest >= margin:
        return f"The whole interval lies beyond the margin of {margin:g} that matters."
    if largest < margin:
        return f"The whole interval lies within the margin of {margin:g}: real, but less than what was said to matter."
    return f"Whether it exceeds the margin of {margin:g} that matters is not shown: the interval reaches to both sides."


def seeds_sentence(comparison: Comparison, candidate: Method) -> str:
    """What the verdict knows of other seeds."""
    found, baseline = comparison.primary(candidate), comparison.baseline
    if found.verdict in (Verdict.UNTESTED, Verdict.IDENTICAL):
        return ""
    counts = f"{len(candidate.runs)} run(s) of {candidate.name}, {len(baseline.runs)} of {baseline.name}"
    if found.seed_error.value is None:
        return (
            "This compares two trained models, not two methods: one run of each says nothing of how another seed would "
            "turn out. Train several seeds of both and set compare.group_seeds=true."
        )
    deviations = [
        f"{values.seed_deviation.value:.5f}"
        for values in (found.candidate_values, found.baseline_values)
        if values.seed_deviation.value is not None
    ]
    lone = " A method with one run is taken to vary as the other does." if len(deviations) == 1 else ""
    return (
        f"{counts}: their {LABELS[found.metric]} has a standard deviation over seeds of {' and '.join(deviations)}. "
        f"Of the difference, seeds make a standard error of {found.seed_error.value:.5f}, the sample of rows one of "
        f"{found.row_error.value_or(0):.5f}; the interval holds both.{lone}"
    )


def others_sentence(comparison: Comparison, candidate: Method) -> str:
    """The other metrics: what is shown of each."""
    by_verdict: dict[Verdict, list[str]] = {}
    for found in comparison.of(candidate):
        text = LABELS[found.metric]
        if found.verdict in SIGNIFICANT:
            text += f" ({signed(found.difference.value_or(0))})"
        by_verdict.setdefault(found.verdict, []).append(text)
    parts = [f"{verdict.value}: {', '.join(names)}" for verdict, names in by_verdict.items()]
    return f"Other metrics: {'; '.join(parts)}." if parts else ""


def slices_sentence(comparison: Comparison, candidate: Method) -> str:
    """Where slices differ, those that are worse first."""
    mine = [d for d in comparison.slices if d.candidate == candidate.name and d.p_value.defined]
    if not mine:
        return ""
    parts = []
    for verdict in (Verdict.WORSE, Verdict.BETTER):
        found = sorted((d for d in mine if d.verdict is verdict), key=lambda d: d.adjusted_p.value_or(1.0))
        if found:
            named = [
                f"{d.column}={d.value} ({LABELS[d.metric]} {signed(d.difference.value_or(0))})"
                for d in found[:MOST_SLICES]
            ]
            more = f" and {len(found) - MOST_SLICES} more" if len(found) > MOST_SLICES else ""
            parts.append(f"{verdict.value} in {', '.join(named)}{more}")
    said = "; ".join(parts) if parts else "none is shown to differ, which does not say that none does"
    return f"Slices, {len(mine)} tests: {said}."


def cost_sentence(comparison: Comparison, candidate: Method) -> str:
    """What the candidate costs or saves."""
    by_name = {cost.method: cost for cost in comparison.costs}
    if comparison.baseline.name not in by_name or candidate.name not in by_name:
        return ""
    parts = list(_cost_parts(by_name[comparison.baseline.name], by_name[candidate.name]))
    return f"It takes {'; '.join(parts)}." if parts else ""


def _cost_parts(before: Cost, after: Cost) -> Iterator[str]:
    for field, (label, less, more) in COSTS.items():
        old, new = getattr(before, field), getattr(after, field)
        if not old or not new:
            continue
        ratio = max(old, new) / min(old, new)
        form = ",.2f" if field == "latency_ms" else ",.0f"
        change = "the same" if old == new else f"{ratio:.2f}× {less if new < old else more}"
        yield f"{new:{form}} {label} instead of {old:{form}} ({change})"
