"""Items that a user has met before are no targets: negatives never are such items."""

from pathlib import Path

import polars as pl

from tests.data.behaviour_logs import dataset_of


def test_a_repeated_item_is_no_target_unless_asked_for(tmp_path: Path) -> None:
    """Else "the target is in its own history" would tell the label of every row."""
    seen = {"a": "xyxzxwu", "b": "klkmkno"}
    events = [(user, item, time) for user, items in seen.items() for time, item in enumerate(items)]
    log = pl.DataFrame(events, schema=["user", "item", "time"], orient="row")
    found = {}
    for repeats in (False, True):
        (tmp_path / str(repeats)).mkdir()
        dataset = dataset_of(tmp_path, log, log_attributes=(), repeated_targets=repeats)
        table = dataset.open(tmp_path / str(repeats))
        parts = pl.concat([pl.read_parquet(file.path) for file in table.files]).filter(pl.col("label") == 1)
        found[repeats] = [item in seen for item, seen in parts.select("item", "hist_item").iter_rows()]
    assert not any(found[False]) and any(found[True])
