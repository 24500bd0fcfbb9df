"""The peer's side of `tools/bench_ingest.py`: FuxiCTR's `build_dataset` on one given split, and nothing else.

This file runs in FuxiCTR's own virtual environment (`tools/fuxictr_setup.py` makes it) and imports nothing of ours.

    python -m tools.fuxictr_ingest SPLIT SCRATCH

SPLIT is as `tools/fuxictr_peer.py` takes it, of Criteo columns. Prints a line of JSON; imports are not counted.
"""

import json
import os
import resource
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
    started, before = time.monotonic(), os.times()
    preprocess(data, settings, work)
    seconds, after = time.monotonic() - started, os.times()
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    figures = {"seconds": seconds, "cpu_seconds": sum(after[:4]) - sum(before[:4]), "peak_mib": peak / 1024}
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
