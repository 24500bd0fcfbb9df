"""How fast an event log becomes a dataset folder, and in how much memory: neither may grow with its events.

    python -m tools.bench_ingest_log --events 1000000 5000000 20000000

Generates a CSV log of so many events (user, item, category, time), the events of all users mixed in order of time: 50
a user on average, so that users grow with events; items stay as many, few of them frequent. For each size a fresh
process makes rows of it (`BehaviourDataset.open`), another one ingests it whole. `rows` are those that come out; on a
machine that others use, compare CPU seconds.
"""

import argparse
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from recsys.core.manifest import Manifest
from recsys.data.behaviours import BehaviourDataset
from recsys.data.event_log import EventLog
from recsys.data.histories import SplitTargets, TargetSplit
from recsys.data.ingest import IngestOptions, ingest
from tools.bench_ingest import measured

EVENTS_PER_USER, NUM_ITEMS, NUM_CATEGORIES = 50, 100_000, 500
SKEW = 3.0
"""An item is NUM_ITEMS * u ** SKEW, u uniform."""
CHUNK = 1_000_000
START, SECONDS_PER_YEAR = 1_700_000_000, 31_536_000


def generate(target: Path, num_events: int) -> None:
    """Write a log of so many events, unless it is there."""
    if target.is_file():
        return
    random, partial_file = np.random.default_rng(0), target.with_suffix(".partial")
    with partial_file.open("wb") as file:
        for first in range(0, num_events, CHUNK):
            size = min(CHUNK, num_events - first)
            users = random.integers(0, max(num_events // EVENTS_PER_USER, 1), size)
            items = (NUM_ITEMS * random.random(size) ** SKEW).astype(np.int64)
            times = START + np.arange(first, first + size) * SECONDS_PER_YEAR // num_events
            frame = pl.DataFrame({"user": users, "item": items, "category": items % NUM_CATEGORIES, "time": times})
            texts = (pl.format(f"{name}_{{}}", name).alias(name) for name in ("user", "item", "category"))
            frame.with_columns(*texts).write_csv(file, include_header=first == 0)
    partial_file.rename(target)


def dataset_of(source: Path, split: TargetSplit, stride: int) -> BehaviourDataset:
    """Histories of 20 events for every `stride`-th training event of a user."""
    log = EventLog(files=(str(source),), attributes=("category",))
    split_targets = SplitTargets(method=split, validation=0.02, test=0.02)
    return BehaviourDataset(log=log, max_length=20, target_stride=stride, split=split_targets, repeated_targets=True)


def opened(source: Path, folder: Path, *, split: TargetSplit, stride: int) -> None:
    """Make rows of the log."""
    dataset_of(source, split, stride).open(folder)


def ingested(source: Path, folder: Path, *, split: TargetSplit, stride: int) -> None:
    """Make rows and encode them."""
    ingest(dataset_of(source, split, stride), folder, options=IngestOptions())


def figures_of(source: Path, folder: Path, num_events: int, split: TargetSplit, stride: int) -> dict[str, object]:
    """Seconds, peaks and sizes; what was made is removed."""
    rows = measured(partial(opened, split=split, stride=stride), source, folder / "rows")
    whole = measured(partial(ingested, split=split, stride=stride), source, folder / "whole")
    manifest = Manifest.read(folder / "whole")
    for name in ("rows", "whole"):
        shutil.rmtree(folder / name)
    return {
        "events": num_events,
        "split": split.value,
        "bytes": source.stat().st_size,
        "rows": sum(each.num_rows for each in manifest.splits.values()),
        "users": manifest.categorical["user"].num_keys,
        "events_per_second": round(num_events / rows["seconds"]),
        "cpu_seconds": round(rows["cpu_seconds"], 1),
        "peak_mib": round(rows["peak_mib"]),
        "ingested_events_per_second": round(num_events / whole["seconds"]),
        "ingested_cpu_seconds": round(whole["cpu_seconds"], 1),
        "ingested_peak_mib": round(whole["peak_mib"]),
        "imported_mib": round(rows["imported_mib"]),
    }


def main() -> None:
    """Generate, measure, print a line of JSON for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--split", type=TargetSplit, default=TargetSplit.CHRONOLOGICAL)
    parser.add_argument("--stride", type=int, default=10, help="of the targets of train")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_ingest_log"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for num_events in arguments.events:
        source = arguments.folder / f"{num_events}.csv"
        generate(source, num_events)
        print(
            json.dumps(figures_of(source, arguments.folder, num_events, arguments.split, arguments.stride)), flush=True
        )


if __name__ == "__main__":
    main()
