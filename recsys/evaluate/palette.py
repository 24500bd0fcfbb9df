"""Colours of the report: matplotlib draws with stand-ins, and the page's style sheet says what each one is.

One SVG so serves a light and a dark page, and follows the reader's setting without being drawn twice.
"""

import io
import re

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

INK, MUTED, GRID = "#010101", "#010102", "#010103"
FIRST, SECOND, SURFACE = "#010104", "#010105", "#010106"
"""Stand-ins: never seen, each replaced by the custom property below."""

CSS_VARIABLE = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    SURFACE: "var(--surface)",
}

STYLE = mpl.RcParams(
    {
        "svg.fonttype": "none",  # text stays text: selectable, searchable, in the page's own font
        "text.parse_math": False,  # a slice called "$5" is a name, not a formula
        "font.family": ["DejaVu Sans"],
        "font.size": 9,
        "axes.prop_cycle": cycler(color=[FIRST, SECOND, MUTED]),
        "axes.edgecolor": GRID,
        "axes.labelcolor": MUTED,
        "axes.labelsize": 9,
        "axes.titlesize": 9.5,
        "axes.titlecolor": INK,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "text.color": INK,
        "xtick.color": GRID,
        "ytick.color": GRID,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
    }
)


def to_svg(figure: Figure, name: str, description: str) -> str:
    """Return the figure as an inline `<svg>` without any outside reference.

    Args:
        figure: drawn under `STYLE`, with the stand-in colours of this module.
        name: letters and hyphens, unique on the page; prefixes every id inside.
        description: what the figure shows, for readers who cannot see it; trusted text.
    """
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        mpl.rcParams["svg.hashsalt"] = name  # ids that neither change from run to run nor meet those of other figures
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # HTML needs no namespace declarations, and without them the page names no address at all.
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\sid="([^"]*)"', rf' id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"'DejaVu Sans'(, [^;\"]*)?(?=[;\"])", "var(--font)", svg)
    for colour, variable in CSS_VARIABLE.items():
        svg = svg.replace(colour, variable)
    size = re.sub(r' (width|height)="[^"]*pt"', "", svg[: svg.index(">")])
    return f'{size} role="img" aria-label="{description}">{svg[svg.index(">") + 1 :]}'
