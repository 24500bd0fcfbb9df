"""Scores in a file, one JSON line each as soon as it is known: a search that was killed asks again and is told."""

import json
from collections.abc import Callable
from pathlib import Path


class Memo:
    """Scores by key. All ranks read the file, then one of them adds to it."""

    def __init__(self, path: Path, *, writes: bool) -> None:
        self._path, self._writes = path, writes
        self._known: dict[str, list[float]] = {}
        if not path.is_file():
            return
        whole, _, rest = path.read_bytes().rpartition(b"\n")
        for line in whole.splitlines():
            record = json.loads(line)
            self._known[record["key"]] = record["values"]
        if rest and writes:  # killed while it was written: nobody has relied on it
            path.write_bytes(whole + b"\n" if whole else b"")

    def get(self, key: str, compute: Callable[[], list[float]]) -> list[float]:
        """The values of `key`, computed if they are not known."""
        if key not in self._known:
            self._known[key] = compute()
            if self._writes:
                with self._path.open("a") as file:
                    file.write(json.dumps({"key": key, "values": self._known[key]}) + "\n")
        return self._known[key]
