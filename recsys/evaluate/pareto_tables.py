"""Tables of a sweep's page, and the same points as Markdown. All text from outside passes through `text`."""

from collections.abc import Iterator, Sequence

from recsys.evaluate.pareto import Choice, Failure, Point, Refusal, Result, Sweep, TrialResult, baseline
from recsys.evaluate.pareto_trials import rising_note
from recsys.evaluate.sections import text

MIB = 1 << 20
ON_FRONTIER = "★"
LONGEST = 400  # characters of an error that is shown

POINT_HEADS = (
    ("method", True),
    ("budget", False),
    ("plan bytes", False),
    ("smaller", False),
    ("file bytes", False),
    ("peak train RSS, MiB", False),
    ("validation AUC", False),
    ("test AUC", False),
    ("± sd", False),
    ("− full", False),
    ("log loss", False),
    ("train rows/s", False),
    ("latency, ms", False),
    ("seeds", False),
    ("trial", True),
    ("frontier", True),
)
"""(name, whether it sorts as text)."""


def point_table(points: Sequence[Point], full_bytes: int) -> str:
    """One row for each (method, budget), means over seeds."""
    full = baseline(points)
    return sortable("points", POINT_HEADS, [_point_row(point, full, full_bytes) for point in points])


def _point_row(point: Point, full: Point | None, full_bytes: int) -> str:
    return "".join(
        [
            text_cell(point.method),
            number_cell(point.ratio, f"{point.ratio:g}×"),
            number_cell(point.plan_bytes, f"{point.plan_bytes:,}"),
            number_cell(full_bytes / point.plan_bytes, f"{full_bytes / point.plan_bytes:.1f}×"),
            number_cell(point.file_bytes, f"{point.file_bytes:,}"),
            number_cell(point.peak_rss_bytes, f"{point.peak_rss_bytes / MIB:,.0f}"),
            number_cell(point.validation_auc, f"{point.validation_auc:.4f}"),
            number_cell(point.test_auc, f"{point.test_auc:.4f}"),
            _optional(point.test_auc_sd, ".4f", "one seed has no spread"),
            _optional(None if full is None else point.test_auc - full.test_auc, "+.4f", "the sweep has no `full`"),
            number_cell(point.test_log_loss, f"{point.test_log_loss:.4f}"),
            number_cell(point.rows_per_second, f"{point.rows_per_second:,.0f}"),
            _optional(point.latency_ms, ".2f", "measured when all cells are done"),
            number_cell(point.num_seeds, str(point.num_seeds)),
            text_cell(point.trial or "as configured"),
            text_cell(ON_FRONTIER if point.on_frontier else ""),
        ]
    )


def choice_table(chosen: Sequence[Choice], full: Point | None) -> str:
    """What to take at each budget."""
    heads = [(name, name == "method") for name in ("budget", "bytes", "method", "plan bytes", "validation AUC")]
    heads += [("test AUC", False), ("− full", False)]
    rows = [
        "".join(
            [
                number_cell(choice.ratio, f"{choice.ratio:g}×"),
                number_cell(choice.budget_bytes, f"{choice.budget_bytes:,}"),
                text_cell(f"{choice.point.method} ({choice.point.ratio:g}×)"),
                number_cell(choice.point.plan_bytes, f"{choice.point.plan_bytes:,}"),
                number_cell(choice.point.validation_auc, f"{choice.point.validation_auc:.4f}"),
                number_cell(choice.point.test_auc, f"{choice.point.test_auc:.4f}"),
                _optional(None if full is None else choice.point.test_auc - full.test_auc, "+.4f", "no `full`"),
            ]
        )
        for choice in chosen
    ]
    return sortable("choices", heads, rows)


def cell_table(results: Sequence[Result]) -> str:
    """One row for each (method, budget, seed), with the command that repeats it."""
    heads = ["method", "budget", "seed", "trial", "plan bytes", "file bytes", "peak train RSS, MiB", "validation AUC"]
    heads += ["test AUC", "log loss", "train rows/s", "latency, ms", "command"]
    rows = [
        "".join(
            [
                text_cell(result.cell.method),
                number_cell(result.cell.ratio, f"{result.cell.ratio:g}×"),
                number_cell(result.cell.seed, str(result.cell.seed)),
                text_cell(result.cell.trial or "as configured"),
                number_cell(result.plan_bytes, f"{result.plan_bytes:,}"),
                number_cell(result.file_bytes, f"{result.file_bytes:,}"),
                number_cell(result.peak_rss_bytes, f"{result.peak_rss_bytes / MIB:,.0f}"),
                number_cell(result.validation_auc, f"{result.validation_auc:.5f}"),
                number_cell(result.test_auc, f"{result.test_auc:.5f}"),
                number_cell(result.test_log_loss, f"{result.test_log_loss:.5f}"),
                number_cell(result.rows_per_second, f"{result.rows_per_second:,.0f}"),
                _optional(result.latency_ms, ".3f", "measured when all cells are done"),
                _code(result.cell.command),
            ]
        )
        for result in results
    ]
    return sortable("cells", [(name, name in ("method", "trial", "command")) for name in heads], rows)


def trial_table(trials: Sequence[TrialResult]) -> str:
    """Every setting that was tried, and which was taken."""
    heads = [("method", True), ("budget", False), ("trial", True), ("validation AUC", False), ("taken", True)]
    rows = [
        text_cell(trial.cell.method)
        + number_cell(trial.cell.ratio, f"{trial.cell.ratio:g}×")
        + text_cell(trial.cell.trial)
        + number_cell(trial.validation_auc, f"{trial.validation_auc:.5f}")
        + text_cell("yes" if trial.chosen else "")
        for trial in trials
    ]
    return sortable("trials", heads, rows)


def refusal_table(refusals: Sequence[Refusal], full_bytes: int) -> str:
    """One row for each method: the budgets that it cannot meet, with what it needs at least."""
    heads = [("method", True), ("budgets", True), ("floor, bytes", False), ("floor, smaller", False), ("says", True)]
    rows = []
    for method, budgets, floor, message in _by_method(refusals):
        rows.append(
            text_cell(method)
            + text_cell(budgets)
            + _optional(floor, ",.0f", "its message does not tell")
            + _optional(None if floor is None else full_bytes / floor, ".1f", "its message does not tell")
            + _long(message)
        )
    return sortable("refusals", heads, rows)


def _by_method(refusals: Sequence[Refusal]) -> Iterator[tuple[str, str, int | None, str]]:
    """(method, its budgets, largest floor that it told, first message)."""
    for method in dict.fromkeys(refusal.method for refusal in refusals):
        of_it = [refusal for refusal in refusals if refusal.method == method]
        floors = [refusal.floor_bytes for refusal in of_it if refusal.floor_bytes is not None]
        budgets = ", ".join(f"{refusal.ratio:g}×" for refusal in of_it)
        yield method, budgets, max(floors, default=None), of_it[0].message


def failure_table(failures: Sequence[Failure]) -> str:
    """Cells that did not end well."""
    heads = [("cell", True), ("what happened", True), ("log", True), ("command", True)]
    rows = [
        text_cell(failure.cell.run.rpartition("cells/")[2])
        + _long(failure.message)
        + _code(failure.log)
        + _code(failure.cell.command)
        for failure in failures
    ]
    return sortable("failures", heads, rows)


def markdown(sweep: Sweep, points: Sequence[Point], chosen: Sequence[Choice]) -> str:
    """The points, what to take at each budget, and what was refused, for a README."""
    full = baseline(points)
    lines = [
        f"`{sweep.command}`",
        "",
        "![Test AUC against serving bytes](pareto.svg)",
        "",
        *markdown_table(
            [name for name, _ in POINT_HEADS], [_markdown_point(p, full, sweep.full_bytes) for p in points]
        ),
        "",
        "Best on validation among all that fit:",
        "",
        *markdown_table(
            ["budget", "method", "plan bytes", "validation AUC", "test AUC"],
            [
                (
                    f"{choice.ratio:g}×",
                    f"{choice.point.method} ({choice.point.ratio:g}×)",
                    f"{choice.point.plan_bytes:,}",
                    f"{choice.point.validation_auc:.4f}",
                    f"{choice.point.test_auc:.4f}",
                )
                for choice in chosen
            ],
        ),
    ]
    return "\n".join([*lines, "", *_markdown_notes(sweep)]).rstrip() + "\n"


def _markdown_notes(sweep: Sweep) -> list[str]:
    """What qualifies the points: trials that ended too early, budgets refused, cells failed."""
    note = rising_note(sweep.trials)
    failed = [f"- failed: {failure.cell.run}: {_short(failure.message)}" for failure in sweep.failures]
    return [*([note, ""] if note else []), *_markdown_refusals(sweep.refusals), *failed]


def _markdown_point(point: Point, full: Point | None, full_bytes: int) -> tuple[str, ...]:
    return (
        point.method,
        f"{point.ratio:g}×",
        f"{point.plan_bytes:,}",
        f"{full_bytes / point.plan_bytes:.1f}×",
        f"{point.file_bytes:,}",
        f"{point.peak_rss_bytes / MIB:,.0f}",
        f"{point.validation_auc:.4f}",
        f"{point.test_auc:.4f}",
        "—" if point.test_auc_sd is None else f"{point.test_auc_sd:.4f}",
        "—" if full is None else f"{point.test_auc - full.test_auc:+.4f}",
        f"{point.test_log_loss:.4f}",
        f"{point.rows_per_second:,.0f}",
        "—" if point.latency_ms is None else f"{point.latency_ms:.2f}",
        str(point.num_seeds),
        point.trial or "as configured",
        ON_FRONTIER if point.on_frontier else "",
    )


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def _markdown_refusals(refusals: Sequence[Refusal]) -> list[str]:
    return [
        f"- {method} at {budgets}: " + (_short(message) if floor is None else f"needs {floor:,} bytes")
        for method, budgets, floor, message in _by_method(refusals)
    ]


def _short(message: str) -> str:
    """A message in one line of bearable length; the log has all of it."""
    line = " ".join(message.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def sortable(name: str, heads: Sequence[tuple[str, bool]], rows: Sequence[str]) -> str:
    """A table that sorts by the head that is chosen; heads are (name, as text), rows the cells of each."""
    columns = "".join(
        f'<th{" class=text" if as_text else ""} scope="col"><button>{text(head)}</button></th>'
        for head, as_text in heads
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    table = f'<table class="sortable" id="{name}"><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="box table grid"><div class="scroll tall">{table}</div></div>'


def text_cell(value: str) -> str:
    """A cell of words."""
    return f'<td class="text">{text(value)}</td>'


def _long(value: str) -> str:
    return f'<td class="text long">{text(_short(value))}</td>'


def _code(value: str) -> str:
    return f'<td class="text code"><code>{text(value)}</code></td>'


def number_cell(value: float, shown: str) -> str:
    """A cell that sorts by its value."""
    return f'<td data-sort="{value!r}">{text(shown)}</td>'


def _optional(value: float | None, form: str, reason: str) -> str:
    if value is None:
        return f'<td class="none" data-sort=""><abbr title="{text(reason)}">—</abbr></td>'
    return number_cell(value, f"{value:{form}}".replace("-", "−"))
