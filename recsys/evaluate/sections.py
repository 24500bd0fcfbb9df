"""Parts of the report page, each a function from plain values to HTML. All text from data passes through `text`."""

from collections.abc import Mapping, Sequence
from html import escape

from recsys.evaluate.figures import INTERVAL
from recsys.evaluate.result import Evaluation, Metrics, SliceRow
from recsys.evaluate.terms import TERMS
from recsys.metrics import MetricValue, ReliabilityBin

Fact = str | int | float | bool | None

MIB = 1 << 20
WIDE_FACT = 60  # characters; a longer fact takes a line of its own
LABELS = {"plan": "embedding plan"}


def text(value: object) -> str:
    """`value` as HTML text or attribute value, whatever it holds; characters that no font shows become a dot."""
    raw = "".join(c if c.isprintable() or c == " " else "·" for c in str(value))
    return escape(raw, quote=True)


def facts(context: Mapping[str, Fact]) -> str:
    """The run's facts as a grid, in the order given; keys ending `_bytes` become sizes."""
    cells = []
    for key, value in context.items():
        label, shown = _fact(key, value)
        wide = ' class="wide"' if len(shown) > WIDE_FACT else ""
        cells.append(f"<div{wide}><dt>{text(label)}</dt><dd>{text(shown)}</dd></div>")
    return f'<dl class="facts">{"".join(cells)}</dl>' if cells else ""


def _fact(key: str, value: Fact) -> tuple[str, str]:
    label = LABELS.get(key, key.removeprefix("num_").removesuffix("_bytes").replace("_", " "))
    if isinstance(value, int) and not isinstance(value, bool):
        if key.endswith("_bytes"):
            return f"{label} size", f"{value / MIB:,.2f} MiB" if value >= MIB // 10 else f"{value:,} bytes"
        return label, f"{value:,}" if key.startswith("num_") or "rows" in key else str(value)
    return label, "—" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def lead(evaluation: Evaluation) -> str:
    """One sentence in words: what was evaluated, how well it ranks, whether it is calibrated."""
    if evaluation.num_rows == 0:
        return "There are no rows to evaluate."
    rate = evaluation.num_positives / evaluation.num_rows
    weighted = "" if evaluation.weight is None else "counted by their weights, "
    sentence = f"On {evaluation.num_rows:,} rows, {rate:.2%} of them positive, {weighted}"
    auc, ratio = evaluation.metrics["auc"].value, evaluation.metrics["calibration_ratio"].value
    if auc is None:
        return f"{sentence}ranking cannot be judged: {evaluation.metrics['auc'].undefined_reason}."
    sentence += f"the model scores a random positive above a random negative {auc:.1%} of the time"
    if ratio is not None:
        off = abs(ratio - 1)
        direction = "too high" if ratio > 1 else "too low"
        sentence += (
            f", and its probabilities are {off:.1%} {direction} on average"
            if off >= 0.0005
            else (", and its probabilities are right on average")
        )
    return sentence + "." + _worse_than_base_rate(evaluation.metrics)


def _worse_than_base_rate(metrics: Metrics) -> str:
    entropy = metrics["normalized_entropy"].value
    if entropy is None or entropy <= 1:
        return ""
    return (
        " Its log loss is worse than that of predicting the mean rate for every row (normalised entropy "
        f"{entropy:.4f}, above 1): do not use its probabilities as they are."
    )


def cards(evaluation: Evaluation) -> str:
    """One card per headline metric that was computed."""
    shown = [_card(name, evaluation) for name in CARDS if name in evaluation.metrics]
    return f'<div class="grid cards">{"".join(shown)}</div>'


CARDS = {
    "auc": ("AUC", "0.5 is chance, 1 is perfect"),
    "gauc": ("GAUC", "AUC within each group"),
    "log_loss": ("Log loss", "nats a row; lower is better"),
    "normalized_entropy": ("Norm. entropy", "below 1 beats predicting the mean rate"),
    "calibration_ratio": ("Calibration", "mean prediction over observed rate; 1 is right"),
    "share_of_possible_auc": ("Of the possible", "AUC above chance, of what true probabilities reach"),
}


def _card(name: str, evaluation: Evaluation) -> str:
    label, note = CARDS[name]
    metrics, meter = evaluation.metrics, ""
    value, interval = metrics[name], evaluation.intervals.get(name)
    if name == "gauc" and metrics["gauc_row_share"].value is not None:
        note += f", over {metrics['gauc_row_share'].value:.0%} of rows"
    if name == "normalized_entropy" and value.value_or(0) > 1:
        note = "above 1: worse than predicting the mean rate"
    if name == "share_of_possible_auc" and value.value is not None:
        note = f"AUC above chance; true probabilities reach {metrics['bayes_auc']}"[:-2]
        meter = f'<div class="meter"><i style="width:{max(0.0, min(value.value, 1.0)):.2%}"></i></div>'
    if value.value is None:
        number, note = '<div class="number undefined">undefined</div>', value.undefined_reason
    else:
        shown = f"{value.value:.1%}" if name == "share_of_possible_auc" else _number(value.value, name)
        number = f'<div class="number">{shown}</div>'
        if interval is not None and interval.low.value is not None:
            ends = " … ".join(_number(end.value_or(0), name) for end in (interval.low, interval.high))
            number += f'<div class="note">95%: {ends}</div>'
    note = f'<div class="note">{text(note)}</div>'
    return f'<div class="box card"><div class="label">{label}</div>{number}{meter}{note}</div>'


def _number(value: float, name: str) -> str:
    return f"{value:.3f}" if name == "calibration_ratio" else f"{value:.4f}"


def figure(svg: str, title: str, caption: str, *, wide: bool = False) -> str:
    """A figure in its box, over all columns when `wide`; `svg` is trusted, title and caption are escaped."""
    heading = f"<h3>{text(title)}</h3><figcaption>{text(caption)}</figcaption>"
    return f'<figure class="box{" wide" if wide else ""}">{heading}{svg}</figure>'


def bins_table(bins: Sequence[ReliabilityBin]) -> str:
    """The numbers behind the reliability curve, folded away."""
    rows = "".join(
        f"<tr><td>{b.count:,}</td><td>{b.min_prediction:.4g} … {b.max_prediction:.4g}</td>"
        f"<td>{b.mean_prediction:.5f}</td><td>{b.observed_rate:.5f}</td>"
        f"<td>{b.observed_low:.5f} … {b.observed_high:.5f}</td></tr>"
        for b in bins
    )
    names = ("rows", "range", "predicted", "observed", "95% interval")
    heads = "".join(f'<th class="plain" scope="col">{name}</th>' for name in names)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    summary = "<summary>Numbers behind the reliability curve</summary>"
    return f'<details class="box">{summary}<div class="scroll">{table}</div></details>'


def slice_table(rows: Sequence[SliceRow], overall: MetricValue) -> str:
    """All slices in one table that sorts on a click and filters by name."""
    names = ["rows", "positive rate", "AUC", "± 95%", "− overall", "− rest", "adj. p", "log loss", "NE", "calibration"]
    heads = [f'<th class="text" scope="col"><button>{n}</button></th>' for n in ("column", "value")]
    heads += [f'<th scope="col"><button>{n}</button></th>' for n in names]
    body = "".join(_slice_row(row, overall) for row in rows)
    search = '<input type="search" placeholder="Filter slices" aria-label="Filter slices">' if len(rows) > 10 else ""
    return (
        f'{search}<div class="box table grid"><div class="scroll tall"><table class="sortable" id="slices">'
        f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{body}</tbody></table></div></div>"
    )


def _slice_row(row: SliceRow, overall: MetricValue) -> str:
    auc = row.metrics["auc"]
    difference = auc
    if auc.value is not None:
        difference = (
            MetricValue.undefined("no overall AUC")
            if overall.value is None
            else MetricValue.of(auc.value - overall.value)
        )
    rate = row.num_positives / row.num_rows if row.num_rows else 0.0
    cells = [
        f'<td class="text">{text(row.column)}</td><td class="text" title="{text(row.value)}">{text(row.value)}</td>',
        f'<td data-sort="{row.num_rows}">{row.num_rows:,}</td><td data-sort="{rate}">{rate:.2%}</td>',
        cell(auc, ".4f"),
        cell(_half_interval(row.metrics), ".4f"),
        cell(difference, "+.4f"),
        cell(row.versus_rest.difference, "+.4f"),
        cell(row.versus_rest.adjusted_p_value, ".2g"),
        cell(row.metrics["log_loss"], ".4f"),
        cell(row.metrics["normalized_entropy"], ".4f"),
        cell(row.metrics["calibration_ratio"], ".3f"),
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _half_interval(metrics: Metrics) -> MetricValue:
    error = metrics["auc_standard_error"]
    return error if error.value is None else MetricValue.of(INTERVAL * error.value)


def cell(value: MetricValue, form: str) -> str:
    """A table's cell: the number, or "undefined" with the reason to hover over."""
    if value.value is None:
        return f'<td class="none" data-sort=""><abbr title="{text(value.undefined_reason)}">undefined</abbr></td>'
    return f'<td data-sort="{value.value!r}">{value.value:{form}}</td>'.replace(">-", ">−")


def terms() -> str:
    """What each word of the report means."""
    items = "".join(f"<dt>{name}</dt><dd>{meaning}</dd>" for name, meaning in TERMS.items())
    return f'<dl class="terms">{items}</dl>'
