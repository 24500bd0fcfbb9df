"""AUC against serving bytes as one SVG, drawn by hand: every mark tells its numbers, every method can be lit up.

Colours are custom properties of the page; `standalone` gives the same drawing its own, for a README.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recsys.evaluate.pareto import Point, baseline, frontier
from recsys.evaluate.sections import text

WIDTH, TOP, LEFT, RIGHT, PLOT_HEIGHT, BELOW = 1120, 34, 66, 24, 430, 50
LEGEND_COLUMNS, LEGEND_ROW = 6, 22
NUM_COLOURS = 8
MARKERS = (
    "M-4.6,0a4.6,4.6 0 1,0 9.2,0a4.6,4.6 0 1,0 -9.2,0z",  # disc
    "M-4.2,-4.2h8.4v8.4h-8.4z",  # square
    "M0,-5.6L5.2,4.2H-5.2z",  # triangle
    "M0,-6L5.4,0L0,6L-5.4,0z",  # diamond
    "M0,5.6L5.2,-4.2H-5.2z",  # triangle on its tip
    "M-5,-1.7h3.3v-3.3h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3z",  # cross
)

CSS = """
:root { --c0: #2867b2; --c1: #c2540a; --c2: #2b8a4b; --c3: #a8307f; --c4: #6d52b5; --c5: #8a6d00; --c6: #0d8390;
  --c7: #b3263a; --frontier: #16191f; }
@media (prefers-color-scheme: dark) { :root { --c0: #74aef0; --c1: #f09a52; --c2: #6cc98a; --c3: #ec87c6;
  --c4: #b09bf0; --c5: #d9bc4a; --c6: #5ec7d3; --c7: #f2808c; --frontier: #e8ebf0; } }
.pareto text { fill: var(--muted); font: 12px var(--font); font-variant-numeric: tabular-nums; }
.pareto .rule { stroke: var(--grid); stroke-width: 1; fill: none; }
.pareto .base { stroke: var(--muted); stroke-dasharray: 5 4; fill: none; }
.pareto .best { stroke: var(--frontier); stroke-width: 7; stroke-opacity: .16; fill: none; stroke-linejoin: round; }
.pareto .ring { stroke: var(--frontier); stroke-width: 1.4; fill: none; }
.pareto .series { color: var(--c); }
.pareto .series path { stroke: currentColor; fill: none; stroke-width: 1.5; }
.pareto .series .spread { stroke-opacity: .55; }
.pareto .series .mark { fill: currentColor; stroke: var(--surface); stroke-width: 1; }
.pareto .series text { fill: var(--ink); }
.pareto .legend { cursor: pointer; outline: none; }
.pareto .legend:focus-visible text { text-decoration: underline; }
.pareto.lit .series { opacity: .13; }
.pareto.lit .series.on { opacity: 1; }
"""

OWN = """
:root { --font: ui-sans-serif, system-ui, "Segoe UI", Roboto, sans-serif; --surface: #ffffff; --ink: #16191f;
  --muted: #5c6673; --grid: #e4e7ec; }
@media (prefers-color-scheme: dark) { :root { --surface: #0d1117; --ink: #e8ebf0; --muted: #97a2b0; --grid: #2b323c; } }
svg { background: var(--surface); }
"""


@dataclass(frozen=True)
class Scale:
    """From bytes and AUC to pixels: bytes on a logarithmic axis."""

    low: float  # log10 of bytes
    high: float
    bottom: float  # AUC
    top: float

    @staticmethod
    def of(points: Sequence[Point], *, bottom: float | None = None) -> "Scale":
        """One that holds all points, or those from an AUC of `bottom` on."""
        logs = [math.log10(max(point.plan_bytes, 1)) for point in points]
        top = max(point.test_auc_high for point in points)
        lowest = min(point.test_auc_low for point in points) if bottom is None else bottom
        room = max(top - lowest, 1e-3) * 0.06
        return Scale(min(logs) - 0.12, max(logs) + 0.12, lowest - room, top + room)

    def x(self, num_bytes: float) -> float:
        """Pixels from the left."""
        share = (math.log10(max(num_bytes, 1)) - self.low) / (self.high - self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, auc: float) -> float:
        """Pixels from the top."""
        return TOP + (self.top - auc) / (self.top - self.bottom) * PLOT_HEIGHT


def pareto_figure(
    name: str, points: Sequence[Point], *, full_bytes: int, ratios: Sequence[float], bottom: float | None = None
) -> str:
    """Return the figure as inline `<svg>`.

    Args:
        name: letters and hyphens, unique on the page.
        points: at least one.
        full_bytes: of uncompressed tables: the 1× of the upper axis.
        ratios: shown on the upper axis.
        bottom: lowest AUC to show; None: all.
    """
    scale, methods = Scale.of(points, bottom=bottom), list(dict.fromkeys(point.method for point in points))
    bottom_edge = TOP + PLOT_HEIGHT
    rows = -(-len(methods) // LEGEND_COLUMNS)
    height = bottom_edge + BELOW + rows * LEGEND_ROW
    clip = f"{name}-clip"
    parts = [
        f'<clipPath id="{clip}"><rect x="{LEFT}" y="{TOP - 8}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{PLOT_HEIGHT + 8}"/></clipPath>',
        _axes(scale, full_bytes, ratios),
        f'<g clip-path="url(#{clip})">{_reference(scale, points)}{_frontier(scale, points)}',
        *(_series(scale, [p for p in points if p.method == method], style(methods, method)) for method in methods),
        "</g>",
        *(_legend(number, method, style(methods, method)) for number, method in enumerate(methods)),
    ]
    label = "Test AUC against bytes of all embeddings as served, by method"
    return f'<svg class="pareto" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def standalone(svg: str) -> str:
    """The same figure as a file of its own, for light and dark readers."""
    start = svg.index(">") + 1
    head = svg[: start - 1].replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"')
    return f"{head}><style>{OWN}{CSS}</style>{svg[start:]}\n"


def style(methods: Sequence[str], method: str) -> tuple[str, str]:
    """(colour, marker path) of a method: no two of the first 48 look alike."""
    number = methods.index(method)
    return f"var(--c{number % NUM_COLOURS})", MARKERS[number // NUM_COLOURS % len(MARKERS)]


def size(num_bytes: float) -> str:
    """Bytes in decimal units, as on the axis."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.3g} {unit}"
    return f"{num_bytes:.0f} B"


def _axes(scale: Scale, full_bytes: int, ratios: Sequence[float]) -> str:
    bottom, right = TOP + PLOT_HEIGHT, WIDTH - RIGHT
    parts = []
    for value, digits in _auc_ticks(scale.bottom, scale.top):
        y = scale.y(value)
        parts.append(f'<path class="rule" d="M{LEFT},{y:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.{digits}f}</text>')
    for ratio in ratios:
        x = scale.x(full_bytes / ratio)
        if LEFT <= x <= right:
            parts.append(f'<path class="rule" d="M{x:.1f},{TOP}V{bottom}"/>')
            parts.append(f'<text x="{x:.1f}" y="{TOP - 12}" text-anchor="middle">{ratio:g}×</text>')
    for value in _byte_ticks(scale):
        x = scale.x(value)
        parts.append(f'<path class="rule" d="M{x:.1f},{bottom}v5"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{size(value)}</text>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{bottom + 36}" text-anchor="middle">{AXIS}</text>')
    return "".join(parts)


AXIS = "bytes of all embeddings as served (logarithmic; above: uncompressed bytes / bytes)"


def _auc_ticks(low: float, high: float) -> list[tuple[float, int]]:
    """(AUC, digits to show) about six round values."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    digits = max(2, -math.floor(math.log10(step)))
    return [(number * step, digits) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _byte_ticks(scale: Scale) -> list[float]:
    """Round byte counts, about as many as fit."""
    powers = range(math.floor(scale.low), math.ceil(scale.high) + 1)
    factors = (1, 2, 5) if scale.high - scale.low < 2.5 else (1, 3) if scale.high - scale.low < 5 else (1,)
    return [f * 10.0**p for p in powers for f in factors if scale.low <= math.log10(f * 10.0**p) <= scale.high]


def _reference(scale: Scale, points: Sequence[Point]) -> str:
    full = baseline(points)
    if full is None:
        return ""
    lines = []
    for value, label in ((full.test_auc, "full"), (full.test_auc - 0.001, "full − .001")):
        y = scale.y(value)
        lines.append(f'<path class="base" d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"/>')
        if label == "full" or y - scale.y(full.test_auc) > 12:
            lines.append(f'<text x="{LEFT + 6}" y="{y - 4:.1f}">{label}</text>')
    return "".join(lines)


def _frontier(scale: Scale, points: Sequence[Point]) -> str:
    """A step line through the frontier: what the point of at most so many bytes that validation chooses has on test."""
    best = frontier(points)
    path = f"M{scale.x(best[0].plan_bytes):.1f},{scale.y(best[0].test_auc):.1f}"
    for point in best[1:]:
        path += f"H{scale.x(point.plan_bytes):.1f}V{scale.y(point.test_auc):.1f}"
    return f'<path class="best" d="{path}H{WIDTH - RIGHT}"/>'


def _series(scale: Scale, points: Sequence[Point], look: tuple[str, str]) -> str:
    ordered = sorted(points, key=lambda p: p.plan_bytes)
    places = [f"{scale.x(p.plan_bytes):.1f},{scale.y(p.test_auc):.1f}" for p in ordered]
    colour, marker = look
    parts = [f'<path d="M{"L".join(places)}"/>'] if len(places) > 1 else []
    for point, place in zip(ordered, places, strict=True):
        spread = scale.y(point.test_auc_low) - scale.y(point.test_auc_high)
        x = scale.x(point.plan_bytes)
        if spread > 0:
            parts.append(f'<path class="spread" d="M{x:.1f},{scale.y(point.test_auc_high):.1f}v{spread:.1f}"/>')
        ring = '<circle class="ring" r="8.5"/>' if point.on_frontier else ""
        said = f"{point.method} {point.ratio:g}×: test AUC {point.test_auc:.4f}, {point.plan_bytes:,} bytes"
        parts.append(
            f'<g transform="translate({place})"><title>{text(said)}</title>{ring}<path class="mark" d="{marker}"/></g>'
        )
    return _group(points[0].method, colour, "series", "".join(parts))


def _legend(number: int, method: str, look: tuple[str, str]) -> str:
    colour, marker = look
    x = LEFT + number % LEGEND_COLUMNS * (WIDTH - LEFT - RIGHT) / LEGEND_COLUMNS
    y = TOP + PLOT_HEIGHT + BELOW + 12 + number // LEGEND_COLUMNS * LEGEND_ROW
    inside = (
        f'<g transform="translate({x + 8:.1f},{y})"><path class="mark" d="{marker}"/>'
        f'<text x="14" y="4">{text(method)}</text></g>'
    )
    return _group(method, colour, "series legend", inside, {"tabindex": "0", "role": "button"})


def _group(method: str, colour: str, kind: str, inside: str, more: Mapping[str, str] | None = None) -> str:
    extra = "".join(f' {key}="{value}"' for key, value in (more or {}).items())
    return f'<g class="{kind}" data-method="{text(method)}" style="--c:{colour}"{extra}>{inside}</g>'
