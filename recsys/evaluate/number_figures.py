"""The figures of a report of predicted numbers, each a function from plain values to an inline SVG."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recsys.evaluate.figures import HALF_WIDTH, slice_bars, style
from recsys.evaluate.number_result import NumberSlice, PredictionBin
from recsys.evaluate.palette import FIRST, GRID, MUTED, SURFACE, to_svg
from recsys.metrics import MetricValue


def bins_figure(bins: Sequence[PredictionBin]) -> str:
    """Mean label over mean prediction with its 95% interval, and below it the difference of the two."""
    with style():
        figure = Figure(figsize=(HALF_WIDTH, 4.6), layout="constrained")
        curve, gap = figure.subplots(2, 1, height_ratios=[3, 1.1], sharex=True)
        predicted, actual = [b.mean_prediction for b in bins], [b.mean_label for b in bins]
        ends = [predicted[0], predicted[-1]]
        curve.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="right on average")
        below = [b.mean_label - b.label_interval.low.value_or(b.mean_label) for b in bins]
        above = [b.label_interval.high.value_or(b.mean_label) - b.mean_label for b in bins]
        for axes, heights in ((curve, actual), (gap, [a - p for a, p in zip(actual, predicted, strict=True)])):
            axes.errorbar(predicted, heights, yerr=[below, above], fmt="none", ecolor=FIRST, elinewidth=1.1, alpha=0.55)
            axes.plot(predicted, heights, "o", color=FIRST, markersize=5, markeredgecolor=SURFACE, markeredgewidth=0.8)
        gap.axhline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        curve.set(ylabel="mean label")
        gap.set(ylabel="difference", xlabel="mean prediction")
        gap.yaxis.set_major_locator(MaxNLocator(3))
        curve.legend(loc="best")
        figure.align_ylabels()
        return to_svg(figure, "actual", "Mean label over mean prediction, by bin of the prediction")


def rmse_figure(name: str, rows: Sequence[NumberSlice], overall: MetricValue) -> str:
    """RMSE of the slices of one column as bars from zero with their intervals, that of all rows as a line."""
    shown = [row for row in rows if row.metrics["rmse"].defined]
    with style():
        figure = Figure(figsize=(HALF_WIDTH, 0.75 + 0.25 * len(shown)), layout="constrained")
        axes = figure.subplots()
        names, values = [row.value for row in shown], [row.metrics["rmse"].value_or(0) for row in shown]
        ends = [(row.rmse_interval.low, row.rmse_interval.high) for row in shown]
        ranges = [(low.value_or(v), high.value_or(v)) for v, (low, high) in zip(values, ends, strict=True)]
        slice_bars(axes, names, values, ranges, overall, start=0.0, number=".3g")
        axes.spines["left"].set_color(GRID)
        return to_svg(figure, name, "RMSE by slice")
