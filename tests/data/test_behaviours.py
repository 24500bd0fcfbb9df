"""Event logs to rows: ten events by hand, a past that no future changes, and negatives that give nothing away."""

import logging
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from recsys.core.jsonable import build_config
from recsys.core.manifest import Manifest
from recsys.core.schema import MISSING_KEY, KeyType
from recsys.data.dataset import SPLIT_NAMES, Dataset
from recsys.data.encoder import load_encoder
from recsys.data.histories import SplitTargets, gap_buckets
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.loader import LoaderOptions, ParquetLoader
from recsys.data.negatives import NegativeMethod
from recsys.data.raw import border_tensors
from tests.data.behaviour_logs import CHRONOLOGICAL, dataset_of, random_log, rows, with_category
from tests.data.test_configs import FOLDER, values_of

GOLDEN = {
    # a and b met different items, so that most negatives are the other's only target of the split.
    "train": [
        (1, "b", "k2", "c2", 100, ["k1"], ["c2"], [6]),
        (0, "b", "i3", "c1", 100, ["k1"], ["c2"], [6]),
        (1, "a", "i2", "c2", 103, ["i1"], ["c1"], [2]),
        (0, "a", "k2", "c2", 103, ["i1"], ["c1"], [2]),
        (1, "a", "i3", "c1", 103, ["i2", "i1"], ["c2", "c1"], [0, 2]),
        (0, "a", "k2", "c2", 103, ["i2", "i1"], ["c2", "c1"], [0, 2]),
    ],
    "validation": [
        (1, "a", "i1", "c1", 104, ["i3", "i2", "i1"], ["c1", "c2", "c1"], [1, 1, 3]),
        (0, "a", "k3", "c3", 104, ["i3", "i2", "i1"], ["c1", "c2", "c1"], [1, 1, 3]),
        (1, "b", "k3", "c3", 164, ["k2", "k1"], ["c2", "c2"], [7, 7]),
        (0, "b", "i1", "c1", 164, ["k2", "k1"], ["c2", "c2"], [7, 7]),
    ],
    "test": [
        (1, "a", "i4", "(missing)", 110, ["i1", "i3", "i2"], ["c1", "c1", "c2"], [3, 3, 3]),
        (0, "a", "k4", "c1", 110, ["i1", "i3", "i2"], ["c1", "c1", "c2"], [3, 3, 3]),
        (1, "b", "k4", "c1", 165, ["k3", "k2", "k1"], ["c3", "c2", "c2"], [1, 7, 7]),
        (0, "b", "i4", "(missing)", 165, ["k3", "k2", "k1"], ["c3", "c2", "c2"], [1, 7, 7]),
    ],
}


def past_of(log: pl.DataFrame) -> dict[tuple[str, str, int], list[str]]:
    """History of every event, newest first, by plain loops over the file."""
    events = sorted(enumerate(log.select("user", "item", "time").rows()), key=lambda e: (e[1][2], e[0]))
    seen: dict[str, list[str]] = defaultdict(list)
    found = {}
    for _, (user, item, time) in events:
        found[user, item, time] = seen[user][::-1]
        seen[user].append(item)
    return found


def test_ten_events_by_hand(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        table = dataset_of(tmp_path, max_length=3).open(tmp_path)
    for split, expected in GOLDEN.items():
        assert rows(table, split).rows() == expected, split
    assert rows(table).columns == [
        "label",
        "user",
        "item",
        "category",
        "time",
        "hist_item",
        "hist_category",
        "hist_gap",
    ]
    assert "9 events of 2 users and 8 items; left out 1 repeated ones" in caplog.text
    assert "1 items have several values of 'category'" in caplog.text


@pytest.mark.parametrize("gap", [0, 1, 2, 3, 4, *(2**power + one for power in (32, 40, 54, 62) for one in (-1, 0, 1))])
def test_gap_buckets(gap: int) -> None:
    assert gap_buckets(torch.tensor([gap])).tolist() == [gap.bit_length()]


@pytest.mark.parametrize("split", [SplitTargets(), CHRONOLOGICAL], ids=["leave_one_out", "chronological"])
def test_histories_are_those_of_plain_loops(tmp_path: Path, split: SplitTargets) -> None:
    log = random_log(500, seed=1)
    table, past = dataset_of(tmp_path, log, max_length=9, split=split).open(tmp_path), past_of(log)
    attributes = dict(log.select("item", "category").rows())
    found: Counter[tuple[str, str, int]] = Counter()
    for row in rows(table).to_dicts():
        assert row["category"] == attributes[row["item"]]
        assert row["hist_category"] == [attributes[item] for item in row["hist_item"]]
        assert len(row["hist_gap"]) == len(row["hist_item"])
        if row["label"]:
            assert row["hist_item"] == past[row["user"], row["item"], row["time"]][:9]
            found[row["user"], row["item"], row["time"]] += 1
    assert found == Counter(event for event, seen in past.items() if seen)


@pytest.mark.parametrize("split", [SplitTargets(), CHRONOLOGICAL], ids=["leave_one_out", "chronological"])
@pytest.mark.parametrize("change", ["delete", "shuffle"])
@pytest.mark.parametrize("now", [20, 37])
def test_the_future_changes_nothing_of_a_row(tmp_path: Path, split: SplitTargets, change: str, now: int) -> None:
    """What comes after `now` may decide the split of an event and what is a negative, but no history."""
    log = random_log(500, seed=2)
    future = log.filter(pl.col("time") > now)
    other = (
        with_category(future.with_columns(pl.col("item").shuffle(5), pl.col("time").shuffle(6)))
        if change == "shuffle"
        else future.clear()
    )
    # In front of the file, where it could be taken for the past.
    changed = pl.concat([other, log.filter(pl.col("time") <= now)]).unique(
        ["user", "item", "time"], maintain_order=True
    )
    seen = []
    for name, events in (("a", log), ("b", changed)):
        all_rows = rows(dataset_of(tmp_path, events, split=split).open(tmp_path / name))
        known = all_rows.filter((pl.col("time") <= now) & (pl.col("label") == 1))
        seen.append(known.sort("user", "time", "item"))
    assert seen[0].height > 100 and seen[0].equals(seen[1])


def test_leave_one_out_takes_the_last_two_of_every_user(tmp_path: Path) -> None:
    log = random_log(300, seed=3)
    table, past = dataset_of(tmp_path, log, target_stride=4, min_history=5).open(tmp_path), past_of(log)
    place = {event: len(seen) for event, seen in past.items()}
    num = Counter(user for user, _, _ in past)
    positives = {
        s: {row[:3] for row in rows(table, s).filter(pl.col("label") == 1).select("user", "item", "time").rows()}
        for s in SPLIT_NAMES
    }
    assert positives["test"] == {e for e in past if place[e] == num[e[0]] - 1}
    assert positives["validation"] == {e for e in past if place[e] == num[e[0]] - 2}
    train = {e for e in past if 5 <= place[e] <= num[e[0]] - 3 and (num[e[0]] - 3 - place[e]) % 4 == 0}
    assert positives["train"] == train and len(train) > 30


def test_chronological_splits_do_not_overlap_in_time(tmp_path: Path) -> None:
    table = dataset_of(tmp_path, random_log(500, seed=4), split=CHRONOLOGICAL).open(tmp_path)
    times = [rows(table, split)["time"] for split in SPLIT_NAMES]
    assert times[0].max() < times[1].min() and times[1].max() < times[2].min()  # type: ignore[operator]
    shares = [len(part) / sum(map(len, times)) for part in times]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.05)


@pytest.mark.parametrize("method", NegativeMethod)
def test_negatives_are_items_of_the_split_that_the_user_never_met(tmp_path: Path, method: NegativeMethod) -> None:
    log = random_log(500, seed=5)
    met = set(log.select("user", "item").rows())
    table = dataset_of(tmp_path, log, num_negatives=3, negatives=method).open(tmp_path)
    for split in SPLIT_NAMES:
        frame = rows(table, split)
        positive, negative = frame.filter(pl.col("label") == 1), frame.filter(pl.col("label") == 0)
        assert negative.height == 3 * positive.height
        assert not met & set(negative.select("user", "item").rows())
        assert set(negative["item"]) <= set(positive["item"])
        context = frame.drop("label", "item", "category")
        assert all(context.gather_every(4, offset).equals(context.gather_every(4)) for offset in (1, 2, 3))


@pytest.mark.parametrize(("method", "share"), [(NegativeMethod.POPULARITY, 0.6), (NegativeMethod.UNIFORM, 1 / 41)])
def test_negatives_follow_their_distribution(tmp_path: Path, method: NegativeMethod, share: float) -> None:
    """60 % of 100 users' training events are of one item, the others of 40 items; the last user met none of them."""
    lines = ["user,item,time"]
    for user in range(100):
        bought = ["top" if user < 60 else f"rest{user}", f"v{user % 5}", f"w{user % 5}"]
        lines += [f"u{user},first{user},0", *(f"u{user},{item},{time}" for time, item in enumerate(bought, 1))]
    lines += [f"other,{item},{time}" for time, item in enumerate(("a", "b", "c", "d"))]
    text = "\n".join(lines) + "\n"
    table = dataset_of(tmp_path, text, log_attributes=(), num_negatives=4_000, negatives=method).open(tmp_path)
    drawn = rows(table, "train").filter((pl.col("user") == "other") & (pl.col("label") == 0))
    # `other`'s own target, b, is in the pool too, but never drawn.
    assert drawn.height == 4_000
    assert (drawn["item"] == "top").mean() == pytest.approx(share, abs=4 * (share * (1 - share) / 4_000) ** 0.5)


def test_an_item_alone_tells_nothing_of_the_label(tmp_path: Path) -> None:
    """How often train names a test item, as a positive, as a negative or at all, ranks test rows like chance.

    Negatives drawn from all events, or from those of train, would fail: most items here are rare.
    """
    random = Random(8)
    lines = [f"{user},{int(5_000 * random.random() ** 3)},{time}" for user in range(1_500) for time in range(5)]
    text = "user,item,time\n" + "\n".join(lines) + "\n"
    table = dataset_of(tmp_path, text, log_attributes=()).open(tmp_path)
    train, test = rows(table, "train"), rows(table, "test")
    for named in (train.filter(pl.col("label") == 1), train.filter(pl.col("label") == 0), train):
        counts = test.join(named.group_by("item").len(), on="item", how="left", maintain_order="left")["len"]
        assert roc_auc_score(test["label"], counts.fill_null(0)) == pytest.approx(0.5, abs=0.04)


def test_negatives_depend_on_the_seed_alone(tmp_path: Path) -> None:
    log = random_log(400, seed=6)
    frames = [
        rows(dataset_of(tmp_path, log, seed=seed).open(tmp_path / name))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert frames[0].equals(frames[1]) and not frames[0].equals(frames[2])
    positive = [frame.filter(pl.col("label") == 1) for frame in frames]
    assert positive[0].equals(positive[2])


def test_ingest_gives_equal_bytes_with_one_thread(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, random_log(400, seed=7), num_negatives=2)
    ingest(dataset, tmp_path / "here", options=IngestOptions())
    script = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from recsys.data.behaviours import BehaviourDataset; from recsys.data.event_log import EventLog\n"
        "from recsys.data.ingest import IngestOptions, ingest\n"
        "log = EventLog(files=(sys.argv[1],), attributes=('category',))\n"
        "dataset = BehaviourDataset(log=log, num_negatives=2, repeated_targets=True)\n"
        "ingest(dataset, Path(sys.argv[2]), options=IngestOptions())\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "log.csv"), str(tmp_path / "there")]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "POLARS_MAX_THREADS": "1"})
    names = sorted(path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*.*"))
    assert len(names) > 8
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes(), name


def test_ingest_shares_ids_and_keeps_user_and_time(tmp_path: Path) -> None:
    manifest = ingest(dataset_of(tmp_path, max_length=3), tmp_path / "data", options=IngestOptions())
    assert manifest.schema.passthrough == ("user", "time")
    assert {f.name: f.vocabulary for f in manifest.schema.categorical if f.multi_valued} == {
        "hist_item": "item", "hist_category": "category", "hist_gap": "",
    }  # fmt: skip
    known = {name: statistics.num_embeddings for name, statistics in manifest.categorical.items()}
    # i1 and k1 are known from histories alone; the category of i4 is not known in train.
    assert known["item"] == known["hist_item"] == 1 + len({"k2", "i3", "i2", "i1", "k1"})
    assert known["category"] == 1 + len({"c1", "c2"})
    test = pl.read_parquet(tmp_path / "data" / "test" / "*.parquet")
    assert test["__raw__user"].to_list() == ["a", "a", "b", "b"] and test["time"].to_list() == [110, 110, 165, 165]
    assert test["hist_item"].list.len().to_list() == [3] * 4 == test["hist_gap"].list.len().to_list()
    batch = next(ParquetLoader(tmp_path / "data", "train", LoaderOptions(batch_size=6)).epoch(0))
    lengths = {name: batch.sparse[name].lengths().tolist() for name in ("hist_item", "hist_category", "hist_gap")}
    assert lengths["hist_item"] == lengths["hist_category"] == lengths["hist_gap"]


def test_integer_keys_and_a_missing_attribute(tmp_path: Path) -> None:
    lines = [f"{user},{10 * user + k},{'' if k == 1 else k},{k}" for user in (1, 2) for k in range(4)]
    text = "user,item,category,time\n" + "\n".join(lines) + "\n"
    manifest = ingest(
        dataset_of(tmp_path, text, log_key_type=KeyType.INTEGER), tmp_path / "data", options=IngestOptions()
    )
    raw = pl.read_parquet(tmp_path / "data" / "raw" / "*.parquet")
    assert raw.schema["hist_item"] == pl.List(pl.Int64)
    last = raw.filter((pl.col("item") == 13) & (pl.col("label") == 1))
    assert last["hist_category"].to_list() == [[2, MISSING_KEY, 0]]
    assert raw.filter(pl.col("item") == 11)["category"].unique().to_list() == [MISSING_KEY]
    assert manifest.categorical["category"].num_embeddings == 3


REAL = {
    "taobao": (75_872, 813, ("user", "item", "category", "hist_item", "hist_category", "hist_gap")),
    "amazon_beauty": (198_502, 22_363, ("user", "item", "attribute_1", "attribute_2", "hist_item", "hist_attribute_1",
                                        "hist_attribute_2", "hist_gap")),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_logs_end_to_end(
    name: str, tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every 40th target with a short history, to be quick; the scripted encoder agrees with ingest."""
    monkeypatch.setenv("RECSYS_DATA", str(data_folder))
    num_events, num_users, columns = REAL[name]
    values = {
        **values_of(FOLDER / f"{name}.yaml"),
        "target_stride": 40,
        "max_length": 10,
        "split": {},
        "repeated_targets": True,
    }
    dataset = build_config(Dataset, values, key="dataset")  # type: ignore[type-abstract]
    with caplog.at_level(logging.INFO):
        manifest = ingest(dataset, tmp_path, options=IngestOptions())
    assert f"{num_events} events of {num_users} users" in caplog.text
    per_user = 1 + values["num_negatives"]
    assert [manifest.splits[split].num_rows for split in ("validation", "test")] == [num_users * per_user] * 2
    assert tuple(feature.name for feature in manifest.schema.categorical) == columns
    sample = pl.read_parquet(tmp_path / "raw_sample.parquet").head(2_000)
    test = pl.read_parquet(tmp_path / "test" / "*.parquet").head(2_000)
    _, ids, offsets = torch.jit.script(load_encoder(tmp_path))(border_tensors(sample, Manifest.read(tmp_path).schema))
    for feature, values_, offset in zip(manifest.schema.categorical, ids, offsets, strict=True):
        column = test[feature.name]
        if feature.multi_valued:
            assert offset.diff().tolist() == column.list.len().to_list()
            column = column.explode()
        assert torch.equal(values_, column.to_torch())
