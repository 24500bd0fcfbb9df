"""Small logs of events, and data sets of them."""

from pathlib import Path
from random import Random

import polars as pl
import pytest

from recsys.data import event_log, events
from recsys.data.behaviours import BehaviourDataset
from recsys.data.dataset import RawTable
from recsys.data.event_log import EventLog
from recsys.data.histories import SplitTargets, TargetSplit

CHRONOLOGICAL = SplitTargets(method=TargetSplit.CHRONOLOGICAL, validation=0.2, test=0.2)

TEN = """user,item,category,time
b,k3,c3,164
a,i1,c1,100
a,i2,c2,103
a,i3,c1,103
b,k1,c2,50
b,k4,c1,165
a,i4,,110
b,k2,c2,100
a,i1,c9,104
b,k2,c2,100
"""


def dataset_of(folder: Path, text: str | pl.DataFrame = TEN, **values: object) -> BehaviourDataset:
    """A data set of a CSV log in `folder`; values are fields of it or, with `log_` before, of its log."""
    path = folder / "log.csv"
    if isinstance(text, str):
        path.write_text(text)
    else:
        text.write_csv(path)
    log = {key[4:]: values.pop(key) for key in list(values) if key.startswith("log_")}
    log = {"files": (str(path),), "attributes": ("category",), **log}
    return BehaviourDataset(log=EventLog(**log), **{"repeated_targets": True, **values})  # type: ignore[arg-type]


def rows(table: RawTable, split: str = "") -> pl.DataFrame:
    return pl.concat(pl.read_parquet(file.path) for file in table.files if not split or file.split == split)


def random_log(num_events: int, seed: int, *, times: int = 60) -> pl.DataFrame:
    """Events of 12 users and 300 items, popular ones first, with many equal times; no row is repeated."""
    random = Random(seed)
    events = [
        (f"u{random.randrange(12)}", int(300 * random.random() ** 2), random.randrange(times))
        for _ in range(num_events)
    ]
    columns = {"user": [e[0] for e in events], "item": [f"i{e[1]}" for e in events], "time": [e[2] for e in events]}
    frame = with_category(pl.DataFrame(columns))
    return frame.unique(["user", "item", "time"], keep="first", maintain_order=True)


def with_category(log: pl.DataFrame) -> pl.DataFrame:
    """With the category of each item, one of seven."""
    return log.with_columns(("c" + (pl.col("item").str.slice(1).cast(pl.Int64) % 7).cast(pl.String)).alias("category"))


def read_at_once(num_events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a bucket, and about a part, have so many events; a third of that is read at a time."""
    monkeypatch.setattr(events, "EVENTS_AT_ONCE", num_events)
    monkeypatch.setattr(event_log, "CHUNK_ROWS", num_events // 3)
