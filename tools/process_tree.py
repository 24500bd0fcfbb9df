"""CPU seconds and peak memory of a process and all that it starts, whoever waits for them."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_SECONDS = 0.2
"""Between looks: what a process does in the last of these before it ends is not seen."""


@dataclass
class TreeUsage:
    """Of a process and its descendants, as far as looks at them saw."""

    peak_mib: float = 0.0  # of all together; pages that several share are counted once
    ticks: dict[int, int] = field(default_factory=dict)  # by process

    @property
    def cpu_seconds(self) -> float:
        """Of all processes, ended ones too."""
        return sum(self.ticks.values()) / os.sysconf("SC_CLK_TCK")

    def look(self, root: int) -> None:
        """Add what the processes of now have taken."""
        total = 0
        for pid, ticks in tree_of(root).items():
            self.ticks[pid] = ticks
            total += _proportional_kib(pid)
        self.peak_mib = max(self.peak_mib, total / 1024)


def tree_of(root: int) -> dict[int, int]:
    """CPU ticks of a process and of its descendants, by process."""
    parents, ticks = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _fields(entry / "stat")):
            parents[int(entry.name)], ticks[int(entry.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    found = {root} & set(ticks)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: ticks[pid] for pid in found}


def _fields(path: Path) -> list[str]:
    """Of a process, from its state on; nothing of one that has ended."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _proportional_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


@contextmanager
def watched(root: int) -> Iterator[TreeUsage]:
    """Look at a process and its descendants again and again, until the block ends."""
    usage, ended = TreeUsage(), threading.Event()

    def look() -> None:
        while not ended.is_set():
            usage.look(root)
            time.sleep(SAMPLE_SECONDS)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield usage
    finally:
        ended.set()
        thread.join()
