"""Tables of the report: all metrics with their intervals, calibration before and after, counterfactual values."""

from collections.abc import Mapping, Sequence

from recsys.evaluate.intervals import Z
from recsys.evaluate.result import CalibrationResult, Evaluation, Interval
from recsys.evaluate.sections import cell, text
from recsys.metrics import MetricValue, PolicyValue

NAMES = {
    "auc": ("AUC", ".5f"),
    "gauc": ("GAUC", ".5f"),
    "pr_auc": ("PR-AUC", ".5f"),
    "log_loss": ("Log loss", ".5f"),
    "normalized_entropy": ("Normalised entropy", ".5f"),
    "relative_information_gain": ("RIG", ".5f"),
    "brier_score": ("Brier score", ".5f"),
    "calibration_ratio": ("Calibration ratio", ".4f"),
    "calibration_error": ("ECE", ".5f"),
    "kolmogorov_smirnov": ("KS", ".4f"),
}
PARAMETRIC = {"gain_at_": ("Gain, best", ".4f"), "lift_at_": ("Lift, best", ".3f")}


def shown(name: str) -> tuple[str, str] | None:
    """(Label, format) of a metric that tables show; None for those that are only parts of others."""
    for prefix, (label, form) in PARAMETRIC.items():
        if name.startswith(prefix):
            return f"{label} {float(name.removeprefix(prefix)):.4%}".rstrip("0%").rstrip(".") + "%", form
    return NAMES.get(name)


def metric_table(evaluation: Evaluation) -> str:
    """Every metric of all rows with its 95% interval and where that comes from."""
    nothing = Interval.undefined("no interval is computed for this metric")
    order = [*NAMES, *(name for name in evaluation.metrics if name not in NAMES)]
    rows = []
    for name in order:
        if name not in evaluation.metrics or (known := shown(name)) is None:
            continue
        interval = evaluation.intervals.get(name, nothing)
        method = interval.method or f"none: {interval.low.undefined_reason}"
        ends = f"{cell(interval.low, known[1])}{cell(interval.high, known[1])}"
        value = cell(evaluation.metrics[name], known[1])
        rows.append(
            f'<tr><td class="text">{text(known[0])}</td>{value}{ends}<td class="text how">{text(method)}</td></tr>'
        )
    return table(("metric", "value", "95% low", "high", "interval"), rows, text_columns=(0, 4))


def sample(evaluation: Evaluation) -> str:
    """How many rows, positives and groups the metrics are of."""
    words = f"{evaluation.num_rows:,} rows, {evaluation.num_positives:,} positive"
    if evaluation.weight is not None:
        words += f"; rows count by their weights, {evaluation.weight:,.6g} together"
    groups, used = (evaluation.metrics.get(name) for name in ("gauc_groups", "gauc_groups_used"))
    if groups is not None and used is not None:
        words += f"; {groups.value_or(0):,.0f} groups, {used.value_or(0):,.0f} of them with both classes"
    return words


def calibration_table(result: CalibrationResult) -> str:
    """Metrics of the same rows before and after the map."""
    rows = []
    for name, before in result.before.items():
        label, form = NAMES[name]
        after = result.after[name]
        change = before if before.value is None else after
        if before.value is not None and after.value is not None:
            change = MetricValue.of(after.value - before.value)
        cells = f"{cell(before, form)}{cell(after, form)}{cell(change, '+' + form)}"
        rows.append(f'<tr><td class="text">{label}</td>{cells}</tr>')
    return table(("metric", "before", "after", "change"), rows)


def policy_table(policies: Mapping[str, PolicyValue]) -> str:
    """Counterfactual values by estimator, with what their weights are worth."""
    rows = []
    for name, policy in policies.items():
        error = policy.standard_error
        half = error if error.value is None else MetricValue.of(Z * error.value)
        cells = cell(policy.value, ".5f") + cell(half, ".5f") + cell(policy.effective_rows, ",.0f")
        cells += cell(policy.mean_weight, ".3f") + cell(policy.max_weight, ".3g")
        cells += f'<td data-sort="{policy.num_clipped}">{policy.num_clipped:,}</td>'
        rows.append(f'<tr><td class="text">{text(name)}</td>{cells}</tr>')
    names = ("estimator", "reward a row", "± 95%", "effective rows", "mean weight", "largest", "clipped rows")
    return table(names, rows)


def table(names: Sequence[str], rows: Sequence[str], *, text_columns: Sequence[int] = (0,), key: str = "") -> str:
    """A table that sorts on a click; rows are trusted HTML, names are escaped."""
    heads = "".join(
        f'<th{" class=text" if at in text_columns else ""} scope="col"><button>{text(name)}</button></th>'
        for at, name in enumerate(names)
    )
    identity = f' id="{key}"' if key else ""
    return (
        f'<div class="box table grid"><div class="scroll tall"><table class="sortable"{identity}>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></div>"
    )
