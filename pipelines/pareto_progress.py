"""Progress of a sweep: its steps take minutes and differ by method, so the time left is told by what each took."""

import statistics
import sys
import time
from collections.abc import Sequence

from rich.progress import TimeElapsedColumn

from recsys.core.progress import TerminalBar


class SweepProgress(TerminalBar):
    """Context manager: `start(step)`, then `end(...)`; a bar on a terminal, a line for each step in a log file.

    Args:
        steps: method of each step to come, in order.
    """

    def __init__(self, steps: Sequence[str]) -> None:
        super().__init__("sweep", total=len(steps), columns=(TimeElapsedColumn(),))
        self._left = list(steps)
        self._total = len(steps)
        self._seconds: dict[str, list[float]] = {}
        self._started, self._what = time.monotonic(), ""

    def start(self, what: str) -> None:
        """Say what is being done now."""
        self._started, self._what = time.monotonic(), what
        if self._bar is not None:
            self._bar.update(self._task, note=f"{self.left()}{what}")

    def end(self, *, worked: bool, failed: bool) -> None:
        """Say that it is done.

        Args:
            worked: there was something to do; a step found finished says nothing about the time of others.
            failed: it did not end well.
        """
        method = self._left.pop(0)
        seconds = time.monotonic() - self._started
        if worked and not failed:
            self._seconds.setdefault(method, []).append(seconds)
        if self._bar is not None:
            self._bar.update(self._task, advance=1, note=self.left())
            if failed:
                self._bar.console.print(f"{self._what}: failed, the page says why", markup=False)
        else:
            outcome = "failed, the page says why" if failed else f"{seconds:.1f} s" if worked else "was done"
            done = f"sweep: {self._total - len(self._left)}/{self._total}"
            print(f"{done} {self.left()}{self._what}: {outcome}", file=sys.stderr, flush=True)

    def left(self) -> str:
        """The time that the steps to come will take by what those before took; empty while nobody knows."""
        known = [seconds for taken in self._seconds.values() for seconds in taken]
        if not known:
            return ""
        overall = statistics.fmean(known)
        left = sum(statistics.fmean(self._seconds.get(method, [overall])) for method in self._left)
        hours, minutes = divmod(round(left / 60), 60)
        shown = f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{left:.0f} s"
        return f"{shown} left, "
