"""The quality page: one HTML file that shows what an ingested data set is like."""

from collections.abc import Sequence

from recsys.core.labels import LabelKind
from recsys.evaluate.metric_tables import table
from recsys.evaluate.quality import FeatureQuality, Quality
from recsys.evaluate.sections import facts, text
from recsys.evaluate.theme import page

WIDTH, HEIGHT = 160, 28  # of a small histogram, in pixels
LARGE_DRIFT = 0.25


def render_quality(quality: Quality) -> str:
    """The page."""
    title = f"{quality.dataset}: the data"
    clicks = quality.label_kind is LabelKind.CLICK
    steps = bars([rate for *_, rate in quality.label_steps], wide=True, form=".2%" if clicks else ".4g")
    parts = [
        f'<div class="kicker">Data quality</div><h1>{text(title)}</h1>',
        f'<p class="lead">{text(_lead(quality))}</p>',
        facts({f"num_rows, {name}": rows for name, rows in quality.rows.items()}),
        f"<h2>{'Label rate' if clicks else 'Mean label'} by position</h2>",
        '<p class="note">Rows in twenty equal steps of the input, which is by time where the files are.</p>',
        f'<div class="box">{steps}</div>',
        "<h2>Features</h2>",
        '<p class="note">Missing and unseen are shares of look-ups, in train and in test; PSI from train: .1 is worth '
        "a look, .25 a large drift.</p>",
        table(NAMES, [_row(feature) for feature in quality.features]),
        "<h2>Bytes of embedding tables</h2>",
        table(("method", "bytes as served"), [_bytes(*each) for each in quality.method_bytes.items()]),
    ]
    return page(text(title), "quality", "".join(parts))


NAMES = (
    "feature", "is", "ids", "keys", "values a row", "missing", "in test", "unseen", "in test", "PSI validation",
    "PSI test", "most frequent, or histogram",
)  # fmt: skip


def _lead(quality: Quality) -> str:
    drifting = [f.name for f in quality.features if f.drift.get("test", 0) >= LARGE_DRIFT]
    said, form = ("label 1 on", ".2%") if quality.label_kind is LabelKind.CLICK else ("labels average", ".4g")
    rates = ", ".join(f"{rate:{form}} in {name}" for name, rate in quality.positive.items())
    told = f"{sum(quality.rows.values()):,} rows; {said} {rates}; {quality.num_rejected:,} rows left out."
    return f"{told} Test differs much from train in {', '.join(drifting)}." if drifting else told


def _row(feature: FeatureQuality) -> str:
    last = bars(feature.shares) if feature.shares else _heavy(feature.heavy)
    cells = [
        _cell(feature.num_ids, ",.0f"),
        _cell(feature.num_keys, ",.0f"),
        _cell(feature.values_a_row, ".2f"),
        *(_cell(shares.get(name), ".2%") for shares in (feature.missing, feature.unseen) for name in ("train", "test")),
        *(_cell(feature.drift.get(name), ".3f") for name in ("validation", "test")),
    ]
    names = f'<td class="text">{text(feature.name)}</td><td>{text(feature.kind)}</td>'
    return f"<tr>{names}{''.join(cells)}<td>{last}</td></tr>"


def _cell(value: float | None, form: str) -> str:
    return '<td class="none" data-sort="">–</td>' if value is None else f'<td data-sort="{value}">{value:{form}}</td>'


def _heavy(heavy: Sequence[tuple[str, float]]) -> str:
    return text(", ".join(f"{value or '(missing)'} {share:.1%}" for value, share in heavy))


def _bytes(method: str, num_bytes: int | None) -> str:
    return f'<tr><td class="text">{text(method)}</td>{_cell(num_bytes, ",.0f")}</tr>'


def bars(values: Sequence[float], *, wide: bool = False, form: str = ".2%") -> str:
    """Bars from zero, or from the least value below it, as inline SVG; each tells its value."""
    width, height = (WIDTH * 5, HEIGHT * 4) if wide else (WIDTH, HEIGHT)
    base = min([*values, 0.0])
    heights, step = [value - base for value in values], width / max(len(values), 1)
    top = max([*heights, 1e-12])
    rectangles = "".join(
        f'<rect x="{i * step:.1f}" y="{height * (1 - high / top):.1f}" width="{step * 0.86:.1f}" '
        f'height="{height * high / top:.1f}" fill="var(--first)"><title>{value:{form}}</title></rect>'
        for i, (value, high) in enumerate(zip(values, heights, strict=True))
    )
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{rectangles}</svg>'
