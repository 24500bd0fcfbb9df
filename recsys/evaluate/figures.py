"""The figures of a report, each a function from plain values to an inline SVG."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from recsys.evaluate.palette import FIRST, GRID, INK, MUTED, SECOND, STYLE, SURFACE, to_svg
from recsys.evaluate.result import GainCurve, Metrics, RocCurve, ScoreHistogram, SliceRow
from recsys.metrics import MetricValue, ReliabilityBin

HALF_WIDTH, FULL_WIDTH = 5.3, 11.2  # inches; the page shows about 96 pixels for each
INTERVAL = 1.96  # standard errors either side of a value, for 95%
MAX_NAME = 28  # characters of a slice's name that a figure shows


@contextmanager
def style() -> Iterator[None]:
    """Draw as all figures of reports are drawn."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Names may be in any script. The browser draws the text, with its own fonts; ours only measures it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def reliability_figure(bins: Sequence[ReliabilityBin]) -> str:
    """Observed rate over mean prediction, with the 95% intervals, and below it the difference of the two."""
    with style():
        figure = Figure(figsize=(HALF_WIDTH, 4.6), layout="constrained")
        curve, gap = figure.subplots(2, 1, height_ratios=[3, 1.1], sharex=True)
        predicted = [b.mean_prediction for b in bins]
        observed = [b.observed_rate for b in bins]
        right = max(predicted) * 1.06 or 1.0
        top = max(right, *(b.observed_high * 1.04 for b in bins))
        below, above = (
            [b.observed_rate - b.observed_low for b in bins],
            [b.observed_high - b.observed_rate for b in bins],
        )
        curve.plot(
            [0, right], [0, right], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfectly calibrated"
        )
        for axes, heights in ((curve, observed), (gap, [o - p for o, p in zip(observed, predicted, strict=True)])):
            axes.errorbar(predicted, heights, yerr=[below, above], fmt="none", ecolor=FIRST, elinewidth=1.1, alpha=0.55)
            axes.plot(predicted, heights, "o", color=FIRST, markersize=5, markeredgecolor=SURFACE, markeredgewidth=0.8)
        gap.axhline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        curve.set(ylabel="observed positive rate", xlim=(0, right), ylim=(0, top))
        gap.set(ylabel="difference", xlabel="mean predicted probability")
        gap.yaxis.set_major_locator(MaxNLocator(3))
        curve.legend(loc="best")
        figure.align_ylabels()
        return to_svg(figure, "reliability", "Observed positive rate over mean predicted probability, by bin")


def roc_figure(roc: RocCurve, auc: MetricValue) -> str:
    """True positive rate over false positive rate."""
    with style():
        figure = Figure(figsize=(HALF_WIDTH, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.fill_between(roc.false_rate, roc.true_rate, color=FIRST, alpha=0.13, linewidth=0)
        axes.plot(roc.false_rate, roc.true_rate, color=FIRST)
        axes.text(0.97, 0.06, f"AUC {auc.value_or(0.5):.4f}", ha="right", fontsize=15, color=INK)
        axes.text(0.5, 0.47, "chance", color=MUTED, rotation=40, ha="center", va="top", fontsize=8.5)
        axes.set(xlim=(0, 1), ylim=(0, 1.005))
        axes.set(xlabel="negatives above the threshold", ylabel="positives above the threshold")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        return to_svg(figure, "roc", "ROC curve")


def gain_figure(gain: GainCurve, positive_rate: float) -> str:
    """Share of positives found among the best-scored share of rows, between chance and a perfect ranking."""
    with style():
        figure = Figure(figsize=(FULL_WIDTH, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, positive_rate, 1], [0, 1, 1], color=MUTED, linewidth=1, label="perfect ranking")
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="chance")
        axes.fill_between(gain.rows, gain.positives, gain.rows, color=FIRST, alpha=0.13, linewidth=0)
        axes.plot(gain.rows, gain.positives, color=FIRST, label="this model")
        axes.set(xlim=(0, 1), ylim=(0, 1.005))
        axes.set(xlabel="share of rows, best first", ylabel="share of positives found")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(loc="lower right")
        return to_svg(figure, "gain", "Share of positives found over share of rows, best first")


def histogram_figure(histogram: ScoreHistogram) -> str:
    """Share of each class by predicted probability, on a log-odds axis so that rare events are not squeezed."""
    with style():
        figure = Figure(figsize=(FULL_WIDTH, 3.2), layout="constrained")
        axes = figure.subplots()
        for shares, colour, label in (
            (histogram.negatives, MUTED, "negatives (label 0)"),
            (histogram.positives, SECOND, "positives (label 1)"),
        ):
            axes.stairs(shares, histogram.edges, fill=True, color=colour, alpha=0.22, linewidth=0)
            axes.stairs(shares, histogram.edges, color=colour, linewidth=1.6, label=label)
        axes.set(xlabel="predicted probability (log-odds scale)", ylabel="share of the class", ylim=(0, None))
        axes.set_xlim(histogram.edges[0], histogram.edges[-1])
        ticks = _probability_ticks(histogram.edges[0], histogram.edges[-1])
        axes.set_xticks([math.log(p / (1 - p)) for p in ticks], [f"{p:.6g}" for p in ticks])
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        axes.legend(loc="upper right")
        return to_svg(figure, "histogram", "Distribution of predicted probabilities by label")


def slice_figure(name: str, rows: Sequence[SliceRow], overall: MetricValue) -> str:
    """AUC of the slices of one column as bars from chance (0.5), with the AUC of all rows as a line."""
    shown = [row for row in rows if row.metrics["auc"].defined]
    with style():
        figure = Figure(figsize=(HALF_WIDTH, 0.75 + 0.25 * len(shown)), layout="constrained")
        axes = figure.subplots()
        ranges = [_interval(row.metrics) for row in shown]
        names, values = [row.value for row in shown], [row.metrics["auc"].value_or(0.5) for row in shown]
        slice_bars(axes, names, values, ranges, overall, start=0.5, number=".3f")
        low, high = min([0.5, *(r[0] for r in ranges)]), max([overall.value_or(0.5), *(r[1] for r in ranges)])
        axes.set_xlim(low - 0.02 * (low < 0.5), high + 0.03 * (high - low) + 0.002)
        axes.spines["left"].set_color(MUTED if low == 0.5 else GRID)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        return to_svg(figure, name, "AUC by slice")


def slice_bars(
    axes: Axes,
    names: Sequence[str],
    values: Sequence[float],
    ranges: Sequence[tuple[float, float]],
    overall: MetricValue,
    *,
    start: float,
    number: str,
) -> None:
    """One bar from `start` with its interval and its value per slice, from the top down; all rows' value as a line."""
    heights = range(len(values))
    below = [value - low for value, (low, _) in zip(values, ranges, strict=True)]
    above = [high - value for value, (_, high) in zip(values, ranges, strict=True)]
    axes.barh(heights, [value - start for value in values], left=start, height=0.62, color=FIRST, alpha=0.75)
    axes.errorbar(values, heights, xerr=[below, above], fmt="none", ecolor=INK, elinewidth=1.1, capsize=2.5)
    place = axes.get_yaxis_transform()
    for height, value in zip(heights, values, strict=True):
        axes.text(1.02, height, f"{value:{number}}", transform=place, va="center", fontsize=8.5, color=MUTED)
    if overall.value is not None:
        axes.axvline(overall.value, color=SECOND, linewidth=1.4)
    axes.set_yticks(heights, [short_name(name) for name in names], color=INK)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _interval(metrics: Metrics) -> tuple[float, float]:
    """95% interval of a defined AUC, within [0, 1]; just the value where its error is unknown."""
    value, half = metrics["auc"].value_or(0.5), INTERVAL * metrics["auc_standard_error"].value_or(0.0)
    return max(value - half, 0.0), min(value + half, 1.0)


def training_figure(
    history: Sequence[dict[str, float]], *, key: str = "validation_auc", label: str = "validation AUC"
) -> str:
    """Losses and the quality `key` by epoch, the best epoch marked, and where the learning rate changed."""
    with style():
        figure = Figure(figsize=(FULL_WIDTH, 3.1), layout="constrained")
        losses, quality = figure.subplots(1, 2)
        epochs = [row["epoch"] for row in history]
        for name, colour, split in (("train_loss", MUTED, "train"), ("validation_log_loss", FIRST, "validation")):
            if any(name in row for row in history):
                values = [row.get(name, math.nan) for row in history]
                losses.plot(epochs, values, "o-", color=colour, label=split, markersize=4)
        losses.set_title("log loss" if any("validation_log_loss" in row for row in history) else "loss")
        losses.legend(loc="best")
        aucs = [row.get(key, math.nan) for row in history]
        quality.plot(epochs, aucs, "o-", color=FIRST, markersize=4)
        quality.set_title(label)
        quality.margins(y=0.16)  # room for the label above the best point
        _mark_best(quality, epochs, aucs)
        for axes in (losses, quality):
            axes.set_xlabel("epoch")
            axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
            _mark_learning_rates(axes, history)
        return to_svg(figure, "training", f"Loss and {label} by epoch")


def _mark_best(axes: Axes, epochs: Sequence[float], aucs: Sequence[float]) -> None:
    known = [(value, -epoch) for value, epoch in zip(aucs, epochs, strict=True) if not math.isnan(value)]
    if known:
        best, epoch = max(known)[0], -max(known)[1]
        axes.plot([epoch], [best], "o", color=SECOND, markersize=8, markeredgecolor=SURFACE)
        axes.annotate(
            f"best {best:.4f}",
            (epoch, best),
            (0, 8),
            textcoords="offset points",
            ha="center",
            color=INK,
            fontsize=8.5,
        )


def _mark_learning_rates(axes: Axes, history: Sequence[dict[str, float]]) -> None:
    rates = [row.get("learning_rate", math.nan) for row in history]
    for before, after, row in zip(rates, rates[1:], history[1:], strict=False):
        if after != before and not math.isnan(after):
            axes.axvline(row["epoch"] - 0.5, color=MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
            axes.annotate(
                f"learning rate {after:.3g}",
                (row["epoch"] - 0.5, 0.02),
                (3, 0),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                color=MUTED,
                fontsize=8,
            )


def _probability_ticks(low: float, high: float) -> list[float]:
    """Round probabilities within the range of log-odds, few enough that their labels do not touch."""
    decades = [10.0**-k for k in range(7, 1, -1)]
    candidates = [*decades, 0.1, 0.3, 0.5, 0.7, 0.9, *(1 - d for d in reversed(decades))]
    finer = sorted({*candidates, *(3 * d for d in decades), 0.03, 0.2, 0.4, 0.6, 0.8, 0.97})
    for choice in (finer, candidates):
        inside = [p for p in choice if low <= math.log(p / (1 - p)) <= high]
        if len(inside) <= 13:
            break
    return inside or [1 / (1 + math.exp(-max(min((low + high) / 2, 30), -30)))]


def short_name(name: str) -> str:
    """A slice's name as figures show it."""
    printable = "".join(character if character.isprintable() else "·" for character in name)
    return printable if len(printable) <= MAX_NAME else printable[: MAX_NAME - 1] + "…"
