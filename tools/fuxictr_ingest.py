"""The peer's side of `tools/bench_ingest.py`: FuxiCTR's `build_dataset` on one given split, and nothing else.

This file runs in FuxiCTR's own virtual environment (`tools/fuxictr_setup.py` makes it) and imports nothing of ours.

    python -m tools.fuxictr_ingest SPLIT SCRATCH

SPLIT is as `tools/fuxictr_peer.py` takes it, of Criteo columns. Prints `begin` when all is imported, and at the end the
seconds since. Then it waits for a line, so that what it has taken, with the processes that it started, can be read.
"""

import sys
import time
from pathlib import Path

from tools.fuxictr_peer import Numeric, preprocess


def main(data: Path, work: Path) -> None:
    """Fit and encode, and tell what that took."""
    work.mkdir(parents=True, exist_ok=True)
    settings = {
        "numeric": [f"I{i}" for i in range(1, 14)],
        "categorical": [f"C{i}" for i in range(1, 27)],
        "numeric_treatment": Numeric.STANDARD.value,
        "embedding_dim": 16,
    }
    print("begin", flush=True)
    started = time.monotonic()
    preprocess(data, settings, work)
    print("seconds", time.monotonic() - started, flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
