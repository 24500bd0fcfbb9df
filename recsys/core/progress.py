"""One progress bar for everything long: rate and time left on a terminal, a line now and then in a log file."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LOG_SECONDS = 10.0


class _RateColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} {self._unit}/s")


class TerminalBar:
    """Context manager of a bar that only a terminal shows; in a log file its subclasses say what they will.

    Args:
        description: stands before the bar.
        total: units of work.
        columns: what stands behind the number of units done, before a note.
        enabled: False says nothing anywhere.
    """

    def __init__(
        self, description: str, *, total: int, columns: Sequence[ProgressColumn], enabled: bool = True
    ) -> None:
        console = Console(stderr=True)
        self._bar: Progress | None = None
        if enabled and console.is_terminal:
            always = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*always, *columns, TextColumn("{task.fields[note]}"), console=console)
            self._task = self._bar.add_task(description, total=total, note="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


class ProgressBar(TerminalBar):
    """Context manager: `advance(n)` after each piece of work, `note(text)` for what else to show (a loss, say)."""

    def __init__(self, description: str, *, total: int, unit: str = "rows", enabled: bool = True) -> None:
        super().__init__(description, total=total, columns=(_RateColumn(unit), TimeRemainingColumn()), enabled=enabled)
        self._description, self._total, self._unit, self._enabled = description, total, unit, enabled
        self._done, self._skipped, self._logged_at, self._note = 0, 0, 0, ""
        self._started = self._logged = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._bar is None and self._enabled and kind is None and self._done != self._logged_at:
            self._log()

    def advance(self, amount: int) -> None:
        """Say that `amount` more units are done."""
        self._done += amount
        if self._bar is not None:
            self._bar.update(self._task, advance=amount, note=self._note)
        elif self._enabled and time.monotonic() - self._logged >= LOG_SECONDS:
            self._log()

    def skip(self, amount: int) -> None:
        """Say that `amount` units were done before: they count as done, and not for the rate."""
        self._done += amount
        self._skipped += amount
        if self._bar is not None:
            self._bar.reset(self._task, completed=self._done)

    def note(self, text: str) -> None:
        """Show `text` behind the bar."""
        self._note = text

    def _log(self) -> None:
        self._logged, self._logged_at = time.monotonic(), self._done
        rate = (self._done - self._skipped) / max(self._logged - self._started, 1e-9)
        left = max(self._total - self._done, 0) / max(rate, 1e-9)
        done = f"{self._description}: {self._done:,}/{self._total:,} {self._unit}"
        text = f"{done}, {rate:,.0f}/s, {left:.0f} s left {self._note}"
        print(text.rstrip(), file=sys.stderr, flush=True)
