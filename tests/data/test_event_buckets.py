"""Logs larger than memory: rows do not depend on how many buckets a log has."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data import events
from recsys.data.behaviours import BehaviourDataset
from recsys.data.dataset import SPLIT_NAMES, RawTable
from recsys.data.histories import SplitTargets
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.negatives import NegativeMethod
from recsys.data.ranks import Values, value_of_rank
from recsys.data.text import TextReader
from tests.data.behaviour_logs import CHRONOLOGICAL, dataset_of, random_log, read_at_once, rows

SMALL, WHOLE = 40, 1 << 21
METHODS = pytest.mark.parametrize("split", [SplitTargets(), CHRONOLOGICAL], ids=["leave_one_out", "chronological"])
Event = tuple[str, str, int]
Row = tuple[str, str, str, int, tuple[str, ...], tuple[int, ...]]


@pytest.fixture(params=[SMALL, WHOLE], ids=["many buckets", "one bucket"])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Events of a bucket, and about so many of a part."""
    read_at_once(request.param, monkeypatch)
    return int(request.param)


def opened(dataset: BehaviourDataset, folder: Path, at_once: int, monkeypatch: pytest.MonkeyPatch) -> RawTable:
    read_at_once(at_once, monkeypatch)
    return dataset.open(folder)


def buckets_of(table: RawTable) -> set[str]:
    return {file.path.stem.split("-")[1] for file in table.files}


def with_repeats(log: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The log in another order of its lines, some of them twice."""
    return pl.concat([log, log.sample(60, seed=seed)]).sample(fraction=1, shuffle=True, seed=seed)


def expected_rows(log: pl.DataFrame, dataset: BehaviourDataset) -> set[Row]:
    """Split, user, item, time, history and gaps of every positive, by plain loops over a dict of users."""
    by_user: dict[str, list[Event]] = defaultdict(list)
    for event in log.select("user", "item", "time").rows():
        if event not in by_user[event[0]]:
            by_user[event[0]].append(event)
    times = sorted(time for own in by_user.values() for _, _, time in own)
    counts = [int(len(times) * share + 1e-6) for share in (dataset.split.test, dataset.split.validation)]
    cuts = times[len(times) - sum(counts)], times[len(times) - counts[0]]
    found = set()
    for user, own in by_user.items():
        own.sort(key=lambda event: event[2])  # stable, so that equal times stay in the order of the lines
        if dataset.split == CHRONOLOGICAL:
            splits = [(time >= cuts[0]) + (time >= cuts[1]) for _, _, time in own]
        else:
            splits = [max(0, 2 - (len(own) - 1 - place)) for place in range(len(own))]
        for place, (_, item, time) in enumerate(own):
            past = own[:place][::-1]
            if place < dataset.min_history or (not dataset.repeated_targets and item in {old for _, old, _ in past}):
                continue
            if splits[place] == 0 and (splits.count(0) - 1 - place) % dataset.target_stride:
                continue
            past = past[: dataset.max_length]
            gaps = tuple((time - before).bit_length() for _, _, before in past)
            found.add((SPLIT_NAMES[splits[place]], user, item, time, tuple(old for _, old, _ in past), gaps))
    return found


@METHODS
@pytest.mark.parametrize("values", [{}, {"target_stride": 3, "min_history": 4, "repeated_targets": False}])
def test_rows_are_those_of_plain_loops(
    tmp_path: Path, at_once: int, split: SplitTargets, values: dict[str, Any]
) -> None:
    log = with_repeats(random_log(500, seed=1), seed=2)
    dataset = dataset_of(tmp_path, log, split=split, max_length=7, **values)
    table, found, categories = dataset.open(tmp_path), list[Row](), dict(log.select("item", "category").rows())
    assert len(buckets_of(table)) == 1 if at_once == WHOLE else len(buckets_of(table)) > 5
    for name in SPLIT_NAMES:
        frame = rows(table, name)
        assert frame["category"].to_list() == [categories[item] for item in frame["item"]]
        columns = frame.filter(pl.col("label") == 1).select("user", "item", "time", "hist_item", "hist_gap")
        found += [(name, user, item, time, tuple(past), tuple(gaps)) for user, item, time, past, gaps in columns.rows()]
    assert len(found) == len(set(found)) > 100 and set(found) == expected_rows(log, dataset)
    assert not (tmp_path / "raw" / events.FOLDER).exists(), "the events are not needed any more"


@METHODS
@pytest.mark.parametrize("negatives", NegativeMethod)
@pytest.mark.parametrize("text", [True, False], ids=["text", "integers"])
def test_the_number_of_buckets_changes_no_row(
    tmp_path: Path, split: SplitTargets, negatives: NegativeMethod, text: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negatives and attributes included."""
    log = with_repeats(random_log(600, seed=3), seed=4).with_columns(
        pl.Series("category", [Random(i).choice("abc") for i in range(660)])
    )
    values: dict[str, Any] = {"split": split, "negatives": negatives, "num_negatives": 2}
    if not text:
        log = log.with_columns(pl.col("user", "item").str.slice(1).cast(pl.Int64), pl.col("category").rank("dense"))
        values["log_key_type"] = "integer"
    dataset = dataset_of(tmp_path, log, **values)
    found = {}
    for at_once in (30, 150, WHOLE):
        table = opened(dataset, tmp_path / str(at_once), at_once, monkeypatch)
        found[len(buckets_of(table))] = {
            name: rows(table, name).sort("user", "item", "time", "label", "hist_item") for name in SPLIT_NAMES
        }
    (_, one), *others = sorted(found.items())
    assert len(others) == 2 and min(found) == 1
    assert all(frame.equals(other[name]) for _, other in others for name, frame in one.items())


def test_a_bucket_holds_whole_users_and_no_more_events_than_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = pl.DataFrame({"user": [f"u{i % 500}" for i in range(3_000)], "item": [f"i{i % 97}" for i in range(3_000)]})
    log = log.with_columns(time=pl.int_range(pl.len()))
    table = opened(dataset_of(tmp_path, log, log_attributes=()), tmp_path, 200, monkeypatch)
    found = rows(table).with_columns(
        bucket=pl.concat(
            [pl.Series([file.path.stem.split("-")[1]] * pl.read_parquet(file.path).height) for file in table.files]
        )
    )
    per_user = found.group_by("user").agg(pl.col("bucket").n_unique())
    assert per_user.height == 500 and per_user["bucket"].max() == 1
    targets = found.filter(pl.col("label") == 1).group_by("bucket").len()
    assert targets.height >= 15 and targets["len"].max() <= 200  # type: ignore[operator]


def test_a_log_without_times_is_in_file_order_in_every_bucket(tmp_path: Path, at_once: int) -> None:
    lines = [f"{user},{user}{item}" for item in range(9) for user in "abcdefghijklmnopqrstuvwxyz"]
    text = "user,item\n" + "\n".join(lines) + "\n"
    table = dataset_of(tmp_path, text, log_time="", log_attributes=()).open(tmp_path)
    test = rows(table, "test").filter(pl.col("label") == 1)
    assert test.height == 26 and test["place"].unique().to_list() == [8]
    assert all(
        past == [f"{user}{k}" for k in range(7, -1, -1)] for user, past in test.select("user", "hist_item").rows()
    )


def test_a_hopeless_chronological_split_is_told_for_few_events(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, random_log(4, seed=1), split=CHRONOLOGICAL)
    with pytest.raises(DataError, match=r"a chronological split of 4 events .* so a split would be empty"):
        dataset.open(tmp_path)


@pytest.mark.parametrize("spread", [1, 50, 70_000, 2**61])
def test_values_of_ranks_are_those_of_sorting(spread: int) -> None:
    random = np.random.default_rng(spread)
    parts = [random.integers(-spread, spread, size, dtype=np.int64) for size in (400, 1, 250)]
    ordered, looks = np.sort(np.concatenate(parts)), []

    def columns() -> Iterator[Values]:
        looks.append(1)
        return iter(parts)

    for rank in (0, 1, 3, 325, 648, 650):
        found = value_of_rank(rank, columns, low=int(ordered[0]), high=int(ordered[-1]))
        assert found == ordered[rank]
    assert len(looks) <= 6 * 4


@pytest.mark.parametrize("max_rejected", [0.0, 0.1])
def test_the_rows_of_a_log_are_counted_once(
    tmp_path: Path, max_rejected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, count_rows = list[Path](), TextReader.count_rows

    def counting(reader: TextReader, path: Path) -> int:
        counted.append(path)
        return count_rows(reader, path)

    monkeypatch.setattr(TextReader, "count_rows", counting)
    ingest(
        dataset_of(tmp_path, random_log(300, seed=9)),
        tmp_path / "out",
        options=IngestOptions(max_rejected=max_rejected),
    )
    assert counted == [tmp_path / "log.csv"]


@pytest.mark.parametrize("blank", [" ", "   ", "\u00a0"])
@pytest.mark.parametrize("column", ["user", "item"])
def test_a_key_of_spaces_names_nobody(tmp_path: Path, column: str, blank: str) -> None:
    log = random_log(50, seed=1).with_columns(
        pl.when(pl.int_range(pl.len()) == 4).then(pl.lit(blank)).otherwise(column).alias(column)
    )
    with pytest.raises(DataError, match=rf"row 5 .*column '{column}': .* names nobody and nothing"):
        dataset_of(tmp_path, log).open(tmp_path)
