"""Writing an evaluation of predicted numbers: figures for machines, one self-contained page for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from recsys.core.jsonable import to_json
from recsys.evaluate import figures, number_figures, sections
from recsys.evaluate.data_checks import DataChecks
from recsys.evaluate.metric_tables import table
from recsys.evaluate.number_result import NumberEvaluation, NumberSlice
from recsys.evaluate.report import (
    CHECKS_FILE,
    METRICS_FILE,
    SLICES_FILE,
    dump,
    finite,
    flat,
    flat_intervals,
    framed,
    slice_boxes,
    write_page,
)
from recsys.evaluate.result import Interval
from recsys.evaluate.sections import Fact, cell, text

BINS_FILE = "bins.json"
NAMES = {
    "rmse": ("RMSE", "root of the mean squared error; lower is better"),
    "mae": ("MAE", "mean absolute error; lower is better"),
    "r2": ("R²", "share of the labels' variance that is explained; 0 is their mean's"),
    "mean_error": ("Mean error", "prediction − label; above 0 predicts too much"),
}
OTHERS = {"mean_label": "Mean label", "mean_prediction": "Mean prediction", "label_std": "Standard deviation of labels"}
TERMS = {
    "RMSE": "Root of the mean squared difference of prediction and label, in the label's units.",
    "MAE": "Mean absolute difference of prediction and label, in the label's units.",
    "R²": "1 − squared errors over those of predicting the mean label of these very rows. Within a slice the mean is "
    "the slice's: where labels hardly differ it may be far below 0.",
    "Mean error": "Mean of prediction − label: what all predictions are too high by.",
    "95% interval": "Would hold the value of all such rows in 95 of 100 samples. Of all rows: quantiles over resampled "
    "groups. Of slices and bins: 1.96 standard errors of the mean (squared) value, rows of one group depending on each "
    "other. Without a group key rows count as independent: too narrow where users repeat.",
    "Predicted and actual": "Rows in order of prediction, in bins of equally many; bars are 95% intervals.",
    "Frequency": "Ids by their look-ups in training: head has half of them or more, head and torso 90% or more.",
    "PSI": "Population stability index between train and test: 0 is no drift, above .25 is large by custom.",
    "Alone": "Correlation with the label, on test rows, of one feature: a number as it is, an id by the mean label "
    "that training rows give it.",
    "Undefined": "The value does not exist for these rows, for the reason given; it is never shown as zero.",
}


def write_numbers(
    evaluation: NumberEvaluation,
    folder: Path,
    context: Mapping[str, Fact],
    *,
    history: Sequence[Mapping[str, float | None]] = (),
    checks: DataChecks | None = None,
) -> None:
    """Write `metrics.json`, `slices.json`, `bins.json` and `report.html` into an existing folder.

    Arguments as `report.write` has them; the history has validation_r2, validation_rmse and validation_mae.
    """
    known = flat_numbers(evaluation) | {f"context.{key}": finite(value) for key, value in context.items()}
    dump(folder / METRICS_FILE, known)
    rows = [
        {"column": row.column, "value": row.value, "num_rows": row.num_rows}
        | flat(row.metrics)
        | flat({"rmse.low": row.rmse_interval.low, "rmse.high": row.rmse_interval.high})
        for row in evaluation.slices
    ]
    dump(folder / SLICES_FILE, rows)
    dump(folder / BINS_FILE, to_json(evaluation.bins))
    if checks is not None:
        dump(folder / CHECKS_FILE, to_json(checks))
    write_page(folder, render_numbers(evaluation, context, history=history, checks=checks))


def flat_numbers(evaluation: NumberEvaluation) -> dict[str, Fact]:
    """Name to number, as `flat_metrics` has it."""
    counts: dict[str, Fact] = {"num_rows": evaluation.num_rows}
    counts |= {} if evaluation.weight is None else {"weight": evaluation.weight}
    return counts | flat(evaluation.metrics) | flat_intervals(evaluation.intervals)


def render_numbers(
    evaluation: NumberEvaluation,
    context: Mapping[str, Fact],
    *,
    history: Sequence[Mapping[str, float | None]] = (),
    checks: DataChecks | None = None,
) -> str:
    """Return the page: one HTML file, figures inline, nothing loaded from anywhere."""
    terms = "".join(f"<dt>{text(name)}</dt><dd>{text(meaning)}</dd>" for name, meaning in TERMS.items())
    parts = [
        f'<div class="grid cards">{"".join(_card(name, evaluation) for name in NAMES)}</div>',
        _all_metrics(evaluation),
        _bins(evaluation),
        _slices(evaluation),
        _training(history),
        f'<h2>How to read this</h2><dl class="terms">{terms}</dl>',
    ]
    return framed(context, lead(evaluation), checks, parts)


def lead(evaluation: NumberEvaluation) -> str:
    """One sentence in words: what was evaluated, how far off predictions are, and in which direction."""
    if evaluation.num_rows == 0:
        return "There are no rows to evaluate."
    metrics = evaluation.metrics
    rmse, error, explained = (metrics[name].value for name in ("rmse", "mean_error", "r2"))
    weighted = "" if evaluation.weight is None else ", counted by their weights"
    sentence = f"On {evaluation.num_rows:,} rows{weighted}"
    if rmse is None or error is None:
        return f"{sentence}, nothing can be said: {metrics['rmse'].undefined_reason}."
    sentence += f", predictions are off by {rmse:.4g} (root mean square)"
    direction = "too high" if error > 0 else "too low"
    sentence += f", and {abs(error):.3g} {direction} on average"
    if explained is None:
        return f"{sentence}."
    if explained <= 0:
        return f"{sentence}. That is no better than predicting the mean label for every row (R² {explained:.4f})."
    return f"{sentence}. They explain {explained:.1%} of the variance of the labels."


def _card(name: str, evaluation: NumberEvaluation) -> str:
    label, note = NAMES[name]
    value, interval = evaluation.metrics[name], evaluation.intervals.get(name)
    if value.value is None:
        number, note = '<div class="number undefined">undefined</div>', value.undefined_reason
    else:
        number = f'<div class="number">{value.value:.4g}</div>'
        if interval is not None and interval.low.value is not None:
            ends = " … ".join(f"{end.value_or(0):.4g}" for end in (interval.low, interval.high))
            number += f'<div class="note">95%: {ends}</div>'
    return f'<div class="box card"><div class="label">{label}</div>{number}<div class="note">{text(note)}</div></div>'


def _all_metrics(evaluation: NumberEvaluation) -> str:
    if evaluation.num_rows == 0:
        return ""
    nothing = Interval.undefined("no interval is computed for this metric")
    rows = []
    for name, label in ({name: label for name, (label, _) in NAMES.items()} | OTHERS).items():
        interval = evaluation.intervals.get(name, nothing)
        how = interval.method or f"none: {interval.low.undefined_reason}"
        ends = f"{cell(interval.low, '.5g')}{cell(interval.high, '.5g')}"
        value = cell(evaluation.metrics[name], ".5g")
        rows.append(f'<tr><td class="text">{text(label)}</td>{value}{ends}<td class="text how">{text(how)}</td></tr>')
    shown = table(("metric", "value", "95% low", "high", "interval"), rows, text_columns=(0, 4))
    weight = "" if evaluation.weight is None else f"; rows count by their weights, {evaluation.weight:,.6g} together"
    return f'<h2>All metrics</h2><p class="note">{evaluation.num_rows:,} rows{weight}.</p>{shown}'


def _bins(evaluation: NumberEvaluation) -> str:
    if not evaluation.bins:
        return ""
    caption = "Points on the dashed line are right on average; bars are 95% intervals of the mean label."
    box = sections.figure(number_figures.bins_figure(evaluation.bins), "Mean label by prediction", caption)
    rows = [
        f"<tr><td>{b.num_rows:,}</td><td>{b.min_prediction:.4g} … {b.max_prediction:.4g}</td>"
        f"<td>{b.mean_prediction:.5g}</td><td>{b.mean_label:.5g}</td>"
        f"{cell(b.label_interval.low, '.5g')}{cell(b.label_interval.high, '.5g')}</tr>"
        for b in evaluation.bins
    ]
    numbers = table(("rows", "range", "predicted", "actual", "95% low", "high"), rows, text_columns=())
    return f'<h2>Predicted and actual</h2><div class="grid halves">{box}<div>{numbers}</div></div>'


def _slices(evaluation: NumberEvaluation) -> str:
    if not evaluation.slices:
        return ""
    overall = evaluation.metrics["rmse"]
    caption = "Bars carry 95% intervals; the line is the RMSE of all rows."
    boxes = slice_boxes(
        evaluation.slices, "rmse", "RMSE", caption, lambda name, rows: number_figures.rmse_figure(name, rows, overall)
    )
    names = ("column", "value", "rows", "mean label", "RMSE", "95% low", "high", "MAE", "R²", "mean error")
    shown_table = table(names, [_slice_row(row) for row in evaluation.slices], text_columns=(0, 1), key="slices")
    return f'<h2>Slices</h2><div class="masonry">{boxes}</div>{shown_table}'


def _slice_row(row: NumberSlice) -> str:
    ends = (row.metrics["rmse"], row.rmse_interval.low, row.rmse_interval.high)
    cells = [
        f'<td class="text">{text(row.column)}</td><td class="text" title="{text(row.value)}">{text(row.value)}</td>',
        f'<td data-sort="{row.num_rows}">{row.num_rows:,}</td>{cell(row.metrics["mean_label"], ".4g")}',
        *(cell(value, ".4g") for value in (*ends, row.metrics["mae"])),
        cell(row.metrics["r2"], ".4f"),
        cell(row.metrics["mean_error"], "+.3g"),
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _training(history: Sequence[Mapping[str, float | None]]) -> str:
    if not history:
        return ""
    rows = [{key: float(value) for key, value in row.items() if value is not None} for row in history]
    svg = figures.training_figure(rows, key="validation_r2", label="validation R²")
    caption = "The loss is the squared error of training rows, in the label's units squared."
    shown = sections.figure(svg, "Loss and validation R² by epoch", caption)
    return f'<h2>Training</h2><div class="grid">{shown}</div>'
