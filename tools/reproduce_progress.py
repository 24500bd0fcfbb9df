"""Progress of many trainings, some at once: the time left is told by what each model took before."""

import statistics
import sys
from collections.abc import Sequence

from rich.progress import TimeElapsedColumn

from recsys.core.progress import TerminalBar


class RunsProgress(TerminalBar):
    """Context manager: `done(...)` after each training; a bar on a terminal, a line for each in a log file.

    Args:
        kinds: of the trainings to come; those of one kind take about equally long.
        jobs: how many run at once.
    """

    def __init__(self, kinds: Sequence[str], *, jobs: int) -> None:
        super().__init__("reproduce", total=len(kinds), columns=(TimeElapsedColumn(),))
        self._left, self._total, self._jobs = list(kinds), len(kinds), jobs
        self._seconds: dict[str, list[float]] = {}

    def done(self, kind: str, what: str, outcome: str, seconds: float | None) -> None:
        """Say that one is done.

        Args:
            kind: one of those to come.
            what: which training.
            outcome: in words.
            seconds: that it took, then or in an earlier process; None if that says nothing about others.
        """
        self._left.remove(kind)
        if seconds is not None:
            self._seconds.setdefault(kind, []).append(seconds)
        if self._bar is not None:
            self._bar.update(self._task, advance=1, note=self.left())
            self._bar.console.print(f"{what}: {outcome}", markup=False)
        else:
            done = f"reproduce: {self._total - len(self._left)}/{self._total}"
            print(f"{done}, {self.left()}{what}: {outcome}", file=sys.stderr, flush=True)

    def left(self) -> str:
        """What the trainings to come will take; empty while nobody knows."""
        known = [seconds for taken in self._seconds.values() for seconds in taken]
        if not known or not self._left:
            return ""
        overall = statistics.fmean(known)
        seconds = sum(statistics.fmean(self._seconds.get(kind, [overall])) for kind in self._left) / self._jobs
        return f"about {seconds / 60:,.0f} min left, "
