"""Files of implicit feedback: what is merged, held out, refused and counted."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from recsys.core.errors import ConfigError, DataError
from recsys.core.interactions import Interactions
from recsys.core.manifest import Manifest
from recsys.core.schema import KeyType
from recsys.data.event_log import EventLog, LogKind
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.interactions import InteractionDataset, hold_out, read_interactions, relevant_pairs
from tests.data.test_joined import write

TRAIN = "5 10 20 30\n900 20 30\n7 10\n7 40 10\n"  # ids with gaps; user 7 on two lines, item 10 twice
TEST = "5 40 99\n900 10\n8 10\n"  # item 99 and user 8 are new


def log(path: Path, *, kind: LogKind = LogKind.USERS, separator: str = " ") -> EventLog:
    return EventLog(files=(str(path),), kind=kind, separator=separator, time="", key_type=KeyType.INTEGER)


def dataset(folder: Path, train: str = TRAIN, test: str = TEST, validation: float = 0.0) -> InteractionDataset:
    for name, text in (("train", train), ("test", test)):
        (folder / f"{name}.txt").write_text(text)
    return InteractionDataset(train=log(folder / "train.txt"), test=log(folder / "test.txt"), validation=validation)


def ingested(folder: Path, train: str = TRAIN, test: str = TEST) -> Path:
    ingest(dataset(folder, train, test), folder / "out", options=IngestOptions())
    return folder / "out"


def keys_of(folder: Path, name: str) -> list[int]:
    return [-1, *pl.read_parquet(folder / f"vocabulary/{name}.parquet")["key"].to_list()]


def test_pairs_come_back_by_their_keys_without_repeats(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = ingested(tmp_path)
    users, items = keys_of(folder, "user"), keys_of(folder, "item")
    assert items[1:] == [10, 20, 30, 40], "by frequency, then by key"
    known = read_interactions(folder, ("train",))
    pairs = {(users[u], items[i]) for u, i in zip(known.users.tolist(), known.items.tolist(), strict=True)}
    assert pairs == {(5, 10), (5, 20), (5, 30), (900, 20), (900, 30), (7, 10), (7, 40)}
    assert "merged 1 repeated pairs" in caplog.text
    assert "without items" not in caplog.text
    asked = list(zip(*(ids.tolist() for ids in relevant_pairs(folder, "test")), strict=True))
    assert [(users[u], items[i]) for u, i in asked] == [(5, 40), (5, -1), (900, 10), (-1, 10)]


def test_how_many_lines_name_no_item_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ingested(tmp_path, train=TRAIN + "31\n32 \n", test=TEST + "31\n")
    assert f"{tmp_path}/train.txt: left out 2 lines of users without items" in caplog.text
    assert f"{tmp_path}/test.txt: left out 1 lines of users without items" in caplog.text


@pytest.mark.parametrize("kind", [kind for kind in LogKind if kind is not LogKind.USERS])
def test_files_of_pairs_give_what_lines_of_users_give(tmp_path: Path, kind: LogKind) -> None:
    by_lines = read_interactions(ingested(tmp_path), ("train",))
    pairs = [(5, 10), (5, 20), (5, 30), (900, 20), (900, 30), (7, 10), (7, 40)]
    frame = pl.DataFrame(pairs, schema=["user", "item"], orient="row")
    file = write(frame, tmp_path / f"train.{'csv' if kind is LogKind.TEXT else kind.value}")
    train = log(Path(file), kind=kind, separator=",")
    ingest(
        InteractionDataset(train=train, test=log(tmp_path / "test.txt"), validation=0.0),
        tmp_path / "out",
        options=IngestOptions(),
    )
    assert torch.equal(read_interactions(tmp_path / "out", ("train",)).keys, by_lines.keys)


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ("1 2 3\n4 5 -6\n", TEST, r"train\.txt, row 2 .*column 'item': -6 names an id below 0"),
        ("1 2 3\n-4 5\n", TEST, r"train\.txt, row 2 .*column 'user': -4 names an id below 0"),
        (TRAIN, "5 40\n900 1.5\n", r"test\.txt, row 2 .*is no signed 64-bit integer"),
        (TRAIN, "", "test split is empty"),
        (TRAIN, "5\n7\n", "test split is empty"),
        ("", TEST, "train split is empty"),
        (TRAIN, "5 10\n", "train holds every test pair"),
        (TRAIN, "8 10\n9 20\n", r"test\.txt: train knows none of the 2 test users.* with the same ids"),
        ("1\t2\n3\t4\n", TEST, r"row 1 .*column 'user': '1\\t2' is no signed 64-bit integer"),
        ("1 2 x 3 y\n", TEST, r"train\.txt, row 1 .*column 'item': 'x' is no .*Between values of a text stands ' '"),
        ("1\n2\n", TEST, r"no interactions: no line has an item behind its user and ' ', so the train"),
        ("1 " + "9" * 9_000 + "\n", TEST, r"column 'item': '9{499}… is no signed"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, train: str, test: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        ingested(tmp_path, train=train, test=test)


def test_faulty_lines_are_left_out_and_listed(tmp_path: Path) -> None:
    """Of both logs, up to a share of their lines together; the others come out as if they alone were there."""
    faulty = TRAIN.splitlines()
    faulty[1:1] = ["x 10", "7 -10 20"]
    given = dataset(tmp_path, "\n".join(faulty) + "\n", "5 4.5\n" + TEST)
    num_lines = len(faulty) + 1 + len(TEST.splitlines())
    manifest = ingest(given, tmp_path / "out", options=IngestOptions(max_rejected=3 / num_lines))
    rejected = pl.read_parquet(tmp_path / "out" / "rejected" / "*.parquet").select("row", "column", "value").rows()
    assert manifest.num_rejected == 3
    assert rejected == [(2, "user", "x"), (3, "item", "-10"), (1, "item", "4.5")]
    (tmp_path / "sound").mkdir()
    sound = ingested(tmp_path / "sound")
    for split in ("train", "test"):
        assert torch.equal(
            read_interactions(tmp_path / "out", (split,)).keys, read_interactions(sound, (split,)).keys
        ), split
    with pytest.raises(DataError, match=rf"3 of {num_lines} rows have faults so far, more than ingest.max_rejected"):
        ingest(given, tmp_path / "few", options=IngestOptions(max_rejected=2 / num_lines))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    given = dataset(tmp_path)
    (tmp_path / "test.txt").unlink()
    with pytest.raises(DataError, match=r"test\.txt: no such file"):
        ingest(given, tmp_path / "out", options=IngestOptions())


def test_test_pairs_of_train_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = ingested(tmp_path, test="5 40 10\n")
    assert relevant_pairs(folder, "test")[0].numel() == 1
    assert "left out 1 test pairs" in caplog.text


def test_what_a_test_cannot_ask_for_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ingested(tmp_path)
    assert "1 test pairs are of users that train lacks" in caplog.text
    assert "1 test pairs are of items that train lacks" in caplog.text


def test_a_share_of_each_user_is_held_out_and_nobody_loses_all() -> None:
    generator = torch.Generator().manual_seed(1)
    pairs = torch.unique(torch.randint(0, 50, (600, 2), generator=generator), dim=0)
    users, items = pairs[torch.randperm(len(pairs), generator=generator)].t()
    held = hold_out(users, items, share=0.25, salt=7)
    left = torch.bincount(users[~held], minlength=50)
    assert (left[torch.bincount(users, minlength=50) > 0] > 0).all()
    assert (torch.bincount(items[~held], minlength=50)[torch.bincount(items, minlength=50) > 0] > 0).all()
    assert 0.15 < float(held.float().mean()) < 0.3
    order = torch.randperm(len(users), generator=generator)
    assert torch.equal(hold_out(users[order], items[order], share=0.25, salt=7), held[order])
    assert not torch.equal(hold_out(users, items, share=0.25, salt=8), held)
    assert not hold_out(users, items, share=0.0, salt=7).any()


def test_validation_is_a_split_of_its_own(tmp_path: Path) -> None:
    train = "".join(f"{user} {' '.join(str((user + i) % 12) for i in range(8))}\n" for user in range(12))
    ingest(dataset(tmp_path, train=train, test="0 11\n", validation=0.2), tmp_path / "out", options=IngestOptions())
    splits = Manifest.read(tmp_path / "out").splits
    assert (splits["train"].num_rows, splits["validation"].num_rows) == (96 - 24, 24)
    both = read_interactions(tmp_path / "out", ("train", "validation"))
    assert both.num_pairs == 96
    assert json.loads((tmp_path / "out/manifest.json").read_text())["splits"]["test"]["file_rows"] == [1]


def test_too_small_a_share_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"validation=0\.01 .* holds out none"):
        ingest(dataset(tmp_path, validation=0.01), tmp_path / "out", options=IngestOptions())


def test_columns_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one name and one type in both"):
        InteractionDataset(train=log(tmp_path), test=EventLog(files=("x",), kind=LogKind.USERS, time=""))


def test_ids_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match="item id 9 at position 1"):
        Interactions.of(torch.tensor([1, 1]), torch.tensor([1, 9]), num_users=2, num_items=9)
    with pytest.raises(DataError, match="no interactions"):
        Interactions.of(torch.tensor([0]), torch.tensor([1]), num_users=2, num_items=9)
