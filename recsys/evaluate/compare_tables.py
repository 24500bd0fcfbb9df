"""Tables of a comparison's page. All text from outside passes through `text`."""

from collections.abc import Callable, Sequence

from recsys.evaluate.compare_words import COSTS, LABELS, shown_p, signed
from recsys.evaluate.compared import Comparison, Difference, Verdict
from recsys.evaluate.sections import text
from recsys.metrics import MetricValue

TEST_HEADS = ("baseline", "candidate's", "difference", "low", "high", "p", "adjusted p", "detectable")


def overall_table(comparison: Comparison) -> str:
    """Every metric of every candidate on all rows."""
    names, candidate = _candidates(comparison)
    heads = [*names, ("metric", True), ("verdict", True), *((name, False) for name in TEST_HEADS)]
    heads += [("row error", False), ("seed error", False)]
    rows = [
        candidate(d) + _text(LABELS[d.metric]) + _said(d) + _tests(d) + _number(d.row_error) + _number(d.seed_error)
        for d in comparison.overall
    ]
    return _table("overall", heads, rows)


def slice_table(comparison: Comparison) -> str:
    """Every test of a slice; sorts on a click and filters by name."""
    names, candidate = _candidates(comparison)
    heads = [("column", True), ("value", True), *names, ("metric", True), ("verdict", True), ("rows", False)]
    heads += [(name, False) for name in TEST_HEADS]
    rows = [
        _text(d.column)
        + _text(d.value)
        + candidate(d)
        + _text(LABELS[d.metric])
        + _said(d)
        + f'<td data-sort="{d.num_rows}">{d.num_rows:,}</td>'
        + _tests(d)
        for d in comparison.slices
    ]
    search = '<input type="search" placeholder="Filter slices" aria-label="Filter slices">' if len(rows) > 10 else ""
    return search + _table("slices", heads, rows)


def _candidates(comparison: Comparison) -> tuple[list[tuple[str, bool]], Callable[[Difference], str]]:
    """(Head, cell) of the column of candidates; nothing where there is but one."""
    if len(comparison.candidates) == 1:
        return [], lambda _: ""
    return [("candidate", True)], lambda d: _name(d.candidate)


def cost_table(comparison: Comparison) -> str:
    """Bytes and speeds of every method, and the mean prediction over the mean label."""
    heads = [("method", True), *((label, False) for label, _, _ in COSTS.values()), ("calibration ratio", False)]
    rows = []
    for cost in comparison.costs:
        cells = [_name(cost.method)]
        for field in COSTS:
            value: float | None = getattr(cost, field)
            shown = "" if value is None else f"{value:,.2f}" if field == "latency_ms" else f"{value:,.0f}"
            cells.append(
                '<td class="none" data-sort="">unknown</td>'
                if value is None
                else f'<td data-sort="{value!r}">{shown}</td>'
            )
        cells.append(_number(comparison.calibration_ratios[cost.method], ".4f"))
        rows.append("".join(cells))
    return _table("costs", heads, rows)


def _tests(d: Difference) -> str:
    return "".join(
        [
            _number(d.baseline_values.mean),
            _number(d.candidate_values.mean),
            _number(d.difference, "+.5f"),
            _number(d.low, "+.5f"),
            _number(d.high, "+.5f"),
            _p(d.p_value),
            _p(d.adjusted_p),
            _number(d.detectable),
        ]
    )


def _said(d: Difference) -> str:
    kind = f" {d.verdict.name.lower()}" if d.verdict in (Verdict.BETTER, Verdict.WORSE) else ""
    return f'<td class="text{kind}">{d.verdict.value}</td>'


def _p(value: MetricValue) -> str:
    if value.value is None:
        return _number(value)
    return f'<td data-sort="{value.value!r}">{text(shown_p(value))}</td>'


def _number(value: MetricValue, form: str = ".5f") -> str:
    if value.value is None:
        return f'<td class="none" data-sort=""><abbr title="{text(value.undefined_reason)}">undefined</abbr></td>'
    shown = signed(value.value) if form == "+.5f" else f"{value.value:{form}}"
    return f'<td data-sort="{value.value!r}">{shown}</td>'


def _text(value: str) -> str:
    return f'<td class="text" title="{text(value)}">{text(value)}</td>'


def _name(value: str) -> str:
    return f'<td class="text name">{text(value)}</td>'


def _table(identity: str, heads: Sequence[tuple[str, bool]], rows: Sequence[str]) -> str:
    """A table that sorts on a click; `heads` say whether a column sorts as text."""
    cells = "".join(
        f'<th{" class=" + chr(34) + "text" + chr(34) if is_text else ""} scope="col"><button>{name}</button></th>'
        for name, is_text in heads
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="box table grid"><div class="scroll tall"><table class="sortable" id="{identity}">'
        f"<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div></div>"
    )
