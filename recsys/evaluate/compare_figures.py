"""The figures of a comparison, each a function from plain values to an inline SVG."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from recsys.evaluate.compare_words import LABELS
from recsys.evaluate.compared import Comparison, Difference, Verdict
from recsys.evaluate.palette import FIRST, GRID, INK, MUTED, SECOND, STYLE, SURFACE, to_svg

HALF_WIDTH, FULL_WIDTH = 5.3, 11.2  # inches
COLUMNS = 3  # panels in a row
MAX_NAME = 30  # characters that a figure shows
COLOURS = {Verdict.BETTER: FIRST, Verdict.WORSE: SECOND}


@contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Names may be in any script: the browser draws the text with its own fonts, ours only measures it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def differences_figure(comparison: Comparison) -> str:
    """One panel for each metric that has an interval: the difference of every candidate."""
    metrics = list(dict.fromkeys(d.metric for d in comparison.overall if d.low.defined))
    names = [candidate.name for candidate in comparison.candidates]
    rows = -(-len(metrics) // COLUMNS)
    with _style():
        figure = Figure(figsize=(FULL_WIDTH, rows * (1.15 + 0.3 * len(names))), layout="constrained")
        grid = figure.subplots(rows, COLUMNS, squeeze=False)
        for axes in grid.flat[len(metrics) :]:
            axes.set_visible(False)
        for number, (axes, metric) in enumerate(zip(grid.flat, metrics, strict=False)):
            found = {d.candidate: d for d in comparison.overall if d.metric is metric}
            shown = [found[name] for name in names]
            _draw(axes, shown, comparison.margin.get(metric.value, 0.0))
            axes.set_title(f"{LABELS[metric]} ({'higher' if metric.higher_is_better else 'lower'} is better)")
            labels = [short(name) for name in names] if number % COLUMNS == 0 else [""] * len(names)
            axes.set_yticks(range(len(names)), labels, color=INK)
        return to_svg(figure, "differences", "Difference to the baseline by metric, with intervals")


def slices_figure(name: str, found: Sequence[Difference], overall: Difference, margin: float) -> str:
    """Differences of one metric in the slices of one column, below the line of all rows."""
    shown = [d for d in found if d.low.defined]
    with _style():
        figure = Figure(figsize=(HALF_WIDTH, 0.9 + 0.27 * len(shown)), layout="constrained")
        axes = figure.subplots()
        _draw(axes, shown, margin)
        if overall.difference.value is not None:
            axes.axvline(overall.difference.value, color=MUTED, linewidth=1.2)
        axes.set_yticks(range(len(shown)), [short(d.value) for d in shown], color=INK)
        return to_svg(figure, name, "Difference to the baseline by slice, with intervals")


def seeds_figure(comparison: Comparison) -> str:
    """The primary metric of every run, by method, with the means."""
    first = comparison.primary(comparison.candidates[0]).baseline_values
    values = {comparison.baseline.name: first} | {
        candidate.name: comparison.primary(candidate).candidate_values for candidate in comparison.candidates
    }
    with _style():
        figure = Figure(figsize=(FULL_WIDTH, 0.9 + 0.32 * len(values)), layout="constrained")
        axes = figure.subplots()
        for height, (name, of) in enumerate(values.items()):
            known = [value.value for value in of.by_run if value.value is not None]
            colour = MUTED if name == comparison.baseline.name else FIRST
            axes.plot(known, [height] * len(known), "o", color=colour, markersize=6, alpha=0.6, markeredgewidth=0)
            if of.mean.value is not None:
                axes.plot([of.mean.value], [height], "|", color=INK, markersize=16, markeredgewidth=1.8)
        axes.set_xlabel(LABELS[comparison.metric])
        _frame(axes, len(values))
        axes.set_yticks(range(len(values)), [short(name) for name in values], color=INK)
        return to_svg(figure, "seeds", "The primary metric of every run, by method")


def _draw(axes: Axes, found: Sequence[Difference], margin: float) -> None:
    """A point with its interval for each difference, from the top down, and what matters as a band."""
    if margin:
        axes.axvspan(-margin, margin, color=MUTED, alpha=0.12, linewidth=0)
    axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for height, d in enumerate(found):
        if d.difference.value is None or d.low.value is None or d.high.value is None:
            continue
        colour = COLOURS.get(d.verdict, MUTED)
        axes.plot([d.low.value, d.high.value], [height, height], color=colour, linewidth=2.2)
        axes.plot([d.difference.value], [height], "o", color=colour, markersize=6, markeredgecolor=SURFACE)
    _frame(axes, len(found))


def _frame(axes: Axes, number: int) -> None:
    axes.set_ylim(number - 0.4, -0.6)
    axes.use_sticky_edges = False  # of the margin's band
    axes.margins(x=0.08)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_color(GRID)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}".replace("-", "−")))


def short(name: str) -> str:
    """A name as a figure shows it: its end, which is where runs differ."""
    printable = "".join(character if character.isprintable() else "·" for character in name)
    return printable if len(printable) <= MAX_NAME else "…" + printable[1 - MAX_NAME :]
