"""Ingest against an independent re-implementation in plain Python, and its splits."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import xxhash

from recsys.core.errors import DataError
from recsys.core.manifest import Manifest
from recsys.core.schema import MISSING_KEY, NumericFeature
from recsys.data.criteo import CriteoDataset
from recsys.data.dataset import SPLIT_NAMES, SplitConfig, SplitMethod
from recsys.data.encoder import load_encoder, vocabulary_path
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.raw import border_tensors
from recsys.data.synthetic import SyntheticDataset
from recsys.data.table import FileKind, TableDataset
from tests.data.conftest import NUMERIC, OPTIONS, read_split, small_frame

Build = Callable[..., TableDataset]


def key_of(value: str | int | None) -> int:
    if value is None or value == "":
        return MISSING_KEY
    if isinstance(value, int):
        return value
    number = xxhash.xxh64(value.encode(), seed=0).intdigest()
    return number - 2**64 if number >= 2**63 else number


def keys_of(row: dict[str, Any], name: str) -> list[int]:
    if name != "tags":
        return [key_of(row[name])]
    return [key_of(tag) for tag in row[name].split("|") if tag][:3]


def vocabulary_of(rows: list[dict[str, Any]], name: str, min_count: int) -> dict[int, int]:
    counts = Counter(key for row in rows for key in keys_of(row, name))
    ranked = sorted((-count, key) for key, count in counts.items() if count >= min_count)
    return {key: rank + 1 for rank, (_, key) in enumerate(ranked)}


def encoded_rows(folder: Path, split: str) -> list[dict[str, Any]]:
    return pl.read_parquet(folder / split / "*.parquet").to_dicts()


@pytest.mark.parametrize("name", ["text", "number", "tags"])
def test_ids_equal_an_independent_implementation(folder: Path, name: str) -> None:
    raw = small_frame().to_dicts()
    train = [raw[row["__row__"]] for row in encoded_rows(folder, "train")]
    vocabulary = vocabulary_of(train, name, 2 if name == "text" else 1)
    assert Manifest.read(folder).categorical[name].num_embeddings == len(vocabulary) + 1
    for split in SPLIT_NAMES:
        for row in encoded_rows(folder, split):
            expected = [vocabulary.get(key, 0) for key in keys_of(raw[row["__row__"]], name)]
            assert (row[name] if name == "tags" else [row[name]]) == expected


def test_hashed_ids_are_keys(folder: Path) -> None:
    raw = small_frame()["hashed"].to_list()
    assert all(row["hashed"] == key_of(raw[row["__row__"]]) for row in encoded_rows(folder, "test"))
    assert not vocabulary_path(folder, "hashed").exists()


@pytest.mark.parametrize("feature", NUMERIC, ids=lambda feature: feature.name)
def test_numbers_equal_an_independent_implementation(folder: Path, feature: NumericFeature) -> None:
    def logged(x: float) -> float:
        return math.copysign(math.log1p(abs(x)), x) if feature.name.startswith("log1p") else x

    raw = small_frame()[feature.name].to_list()
    train = [raw[row["__row__"]] for row in encoded_rows(folder, "train")]
    known = [logged(x) for x in train if x is not None]
    mean = sum(known) / len(known)
    std = math.sqrt(sum((x - mean) ** 2 for x in known) / len(known))
    statistics = Manifest.read(folder).numeric[feature.name]
    assert statistics.mean == pytest.approx(mean, rel=1e-5, abs=1e-6) and statistics.std == pytest.approx(std, rel=1e-5)
    assert statistics.num_missing == len(train) - len(known)
    if "standard" not in feature.name:
        mean, std = 0.0, 1.0
    for row in encoded_rows(folder, "validation"):
        x = raw[row["__row__"]]
        if feature.name == "missing":
            assert row[feature.name] == float(x is None)
            continue
        assert row[feature.name] == pytest.approx(0.0 if x is None else (logged(x) - mean) / std, rel=1e-4, abs=1e-5)


def test_every_row_is_in_one_split_with_its_label_and_passthrough(folder: Path) -> None:
    raw = small_frame()
    splits = [read_split(folder, split, ["__row__", "__label__", "user", "text"]) for split in SPLIT_NAMES]
    assert [split.height for split in splits] == [400, 50, 50]
    together = pl.concat(splits).sort("__row__")
    assert together["__row__"].to_list() == list(range(500))
    # `text` is a feature too: the passthrough copy is the raw text, not the id.
    for name in ("user", "text"):
        assert together[name].to_list() == raw[name].to_list()
    assert together["__label__"].to_list() == raw["label"].to_list()


def test_files_are_bounded_and_described(folder: Path) -> None:
    train = Manifest.read(folder).splits["train"]
    assert len(train.files) == 8 and sum(train.file_rows) == 400 and max(train.file_rows) <= 70
    assert [pl.read_parquet(folder / file).height for file in train.files] == list(train.file_rows)
    assert train.num_positive == sum(row["__label__"] for row in encoded_rows(folder, "train"))


def test_statistics_of_categories(folder: Path) -> None:
    raw = small_frame().to_dicts()
    train = [raw[row["__row__"]] for row in encoded_rows(folder, "train")]
    counts = Counter(key_of(row["text"]) for row in train)
    known = Manifest.read(folder).categorical
    assert known["text"].num_keys == len(counts)
    assert known["text"].oov_count == sum(count for count in counts.values() if count < 2)
    ranked = sorted((count for count in counts.values() if count >= 2), reverse=True)
    assert known["text"].octave_counts == (
        ranked[0],
        sum(ranked[1:3]),
        sum(ranked[3:7]),
        *([sum(ranked[7:])] if ranked[7:] else []),
    )
    assert (known["tags"].max_length, known["text"].max_length) == (4, 1)
    assert known["hashed"].num_embeddings is None and known["hashed"].num_keys == 17


def test_raw_sample_encodes_to_the_test_rows(folder: Path) -> None:
    sample = pl.read_parquet(folder / "raw_sample.parquet")
    test = pl.read_parquet(folder / "test" / "*.parquet")
    assert sample["__row__"].to_list() == test["__row__"].to_list()
    dense, ids, _ = load_encoder(folder)(border_tensors(sample, Manifest.read(folder).schema))
    assert torch.equal(dense[:, 0], test[NUMERIC[0].name].to_torch())
    assert ids[0].tolist() == test["text"].to_list()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_input_and_seed_give_equal_bytes(tmp_path: Path, dataset: Build) -> None:
    source = dataset(small_frame())
    for name in ("first", "second"):
        ingest(source, tmp_path / name, options=OPTIONS)
    assert files_of(tmp_path / "first") == files_of(tmp_path / "second")


def test_threads_change_no_byte(tmp_path: Path) -> None:
    source, before = SyntheticDataset(num_rows=40_000, num_categorical=4), torch.get_num_threads()
    for threads in (1, 4):
        torch.set_num_threads(threads)
        ingest(source, tmp_path / str(threads), options=IngestOptions())
    torch.set_num_threads(before)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "4")


def test_chunk_size_changes_no_byte(tmp_path: Path, dataset: Build) -> None:
    source = dataset(small_frame())
    folders = [tmp_path / str(size) for size in (7, 1000)]
    for folder, size in zip(folders, (7, 1000), strict=True):
        ingest(source, folder, options=IngestOptions(seed=3, chunk_rows=size))
    assert files_of(folders[0]) == files_of(folders[1])


def test_fingerprint_sees_content_seed_and_rule(tmp_path: Path, dataset: Build) -> None:
    def fingerprint(frame: pl.DataFrame, seed: int = 3, rule: SplitConfig | None = None) -> str:
        options = IngestOptions(seed=seed)
        return ingest(dataset(frame, rule or SplitConfig()), tmp_path / "out", options=options).fingerprint

    frame = small_frame()
    prints = [
        fingerprint(frame),
        fingerprint(frame.with_columns(pl.col("number") + 1)),
        fingerprint(frame, 4),
        fingerprint(frame, rule=SplitConfig(train=0.7, test=0.2)),
    ]
    assert len(set(prints)) == 4 and fingerprint(frame) == prints[0]


def split_rows(folder: Path, shares: tuple[float, float, float] = (1, 1, 1)) -> list[list[int]]:
    """Rows of each split, none where its share is 0."""
    return [
        pl.read_parquet(folder / split / "*.parquet")["__row__"].to_list() if share else []
        for split, share in zip(SPLIT_NAMES, shares, strict=True)
    ]


def test_shuffle_is_exact_seeded_and_pinned(tmp_path: Path, dataset: Build) -> None:
    source = dataset(small_frame(503))
    ingest(source, tmp_path / "a", options=OPTIONS)
    ingest(source, tmp_path / "b", options=IngestOptions(seed=4))
    first, other = split_rows(tmp_path / "a"), split_rows(tmp_path / "b")
    assert [len(rows) for rows in first] == [403, 50, 50] and first != other
    assert all(rows == sorted(rows) for rows in first)
    # Frozen: a published split must survive every later version.
    assert first[2][:8] == FROZEN_TEST_ROWS


def test_hash_split_depends_on_the_row_alone(tmp_path: Path, dataset: Build) -> None:
    rule = SplitConfig(method=SplitMethod.HASH)
    for size in (300, 500):
        ingest(dataset(small_frame(size), rule), tmp_path / str(size), options=OPTIONS)
    small, large = split_rows(tmp_path / "300"), split_rows(tmp_path / "500")
    assert [[row for row in rows if row < 300] for rows in large] == small
    assert 30 < len(large[1]) < 70 and 30 < len(large[2]) < 70


def test_order_and_time_splits_are_chronological(tmp_path: Path, dataset: Build) -> None:
    frame = small_frame().with_columns(user=pl.Series([f"{i * 7 % 500 // 2}" for i in range(500)]))
    ingest(dataset(frame, SplitConfig(method=SplitMethod.ORDER)), tmp_path / "order", options=OPTIONS)
    assert split_rows(tmp_path / "order") == [list(range(400)), list(range(400, 450)), list(range(450, 500))]
    rule = SplitConfig(method=SplitMethod.TIME, column="user")
    ingest(dataset(frame, rule), tmp_path / "time", options=OPTIONS)
    ranked = sorted(range(500), key=lambda row: (int(frame["user"][row]), row))
    assert split_rows(tmp_path / "time") == [sorted(ranked[:400]), sorted(ranked[400:450]), sorted(ranked[450:])]


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.6, 0.4, 0.0), (0.7, 0.0, 0.3), (0.2, 0.4, 0.4)])
@pytest.mark.parametrize("seed", range(6))
def test_no_time_is_in_two_splits(
    seed: int, shares: tuple[float, float, float], tmp_path: Path, dataset: Build, caplog: pytest.LogCaptureFixture
) -> None:
    draw = random.Random(seed)
    num_days = draw.choice([3, 4, 5, 40])
    days = [f"2026-10-{min(int(draw.expovariate(3) * num_days), num_days - 1) + 1:02d}" for _ in range(500)]
    days[:3] = ["2026-10-01", "2026-10-02", f"2026-10-{num_days:02d}"]  # as many different ones as there are splits
    rule = SplitConfig(method=SplitMethod.TIME, column="user", train=shares[0], validation=shares[1], test=shares[2])
    frame = small_frame().with_columns(user=pl.Series(days), label=pl.Series([row % 2 for row in range(500)]))
    with caplog.at_level("INFO", "recsys"):
        ingest(dataset(frame, rule), tmp_path / "out", options=OPTIONS)
    parts = [[days[row] for row in rows] for rows in split_rows(tmp_path / "out", shares)]
    wanted = [part for part, share in zip(parts, shares, strict=True) if share]
    assert all(wanted) and sum(map(len, parts)) == 500
    assert all(max(older) < min(newer) for older, newer in itertools.pairwise(wanted))
    biggest = max(days.count(day) for day in days)
    if num_days == 40:
        assert all(abs(len(part) - share * 500) <= biggest + 1 for part, share in zip(parts, shares, strict=True))
    assert f"train {len(parts[0]) / 500:.1%} ({min(parts[0])} … {max(parts[0])})" in caplog.text


def test_too_few_times_are_refused(tmp_path: Path, dataset: Build) -> None:
    frame = small_frame().with_columns(user=pl.Series([f"2026-10-{1 + row % 2}" for row in range(500)]))
    rule = SplitConfig(method=SplitMethod.TIME, column="user")
    with pytest.raises(DataError, match=r"column 'user' has 2 different value\(s\).*3 splits need as many"):
        ingest(dataset(frame, rule), tmp_path / "out", options=OPTIONS)


def test_given_files_split(tmp_path: Path, dataset: Build) -> None:
    for split, part in zip(SPLIT_NAMES, (0, 300, 400), strict=True):
        small_frame().slice(part, 300 if part == 0 else 100).write_parquet(tmp_path / f"{split}.parquet")
    template = dataset(small_frame())
    given = TableDataset(
        kind=FileKind.PARQUET,
        label="label",
        numeric=template.numeric,
        categorical=template.categorical,
        split=SplitConfig(method=SplitMethod.GIVEN),
        train=(str(tmp_path / "train.parquet"),),
        validation=(str(tmp_path / "validation.parquet"),),
        test=(str(tmp_path / "test.parquet"),),
    )
    ingest(given, tmp_path / "out", options=OPTIONS)
    assert split_rows(tmp_path / "out") == [list(range(300)), list(range(300, 400)), list(range(400, 500))]


def test_csv_and_parquet_of_the_same_rows_encode_alike(tmp_path: Path, dataset: Build) -> None:
    parquet = dataset(small_frame())
    small_frame().write_csv(tmp_path / "raw.csv", quote_style="always")
    csv = TableDataset(
        files=(str(tmp_path / "raw.csv"),),
        label="label",
        numeric=parquet.numeric,
        categorical=parquet.categorical,
        passthrough=parquet.passthrough,
    )
    for name, source in {"parquet": parquet, "csv": csv}.items():
        ingest(source, tmp_path / name, options=OPTIONS)
    for split in SPLIT_NAMES:
        first, second = (pl.read_parquet(tmp_path / name / split / "*.parquet") for name in ("parquet", "csv"))
        assert first.drop("__raw__text").equals(second.drop("__raw__text"))


def test_criteo_with_a_header(data_folder: Path, tmp_path: Path) -> None:
    path = data_folder / "criteo-sample" / "deepctr_criteo_sample_200.csv.zst"
    manifest = ingest(CriteoDataset(path=str(path), separator=",", header=True), tmp_path / "out", options=OPTIONS)
    assert [split.num_rows for split in manifest.splits.values()] == [160, 20, 20]


FROZEN_TEST_ROWS = [5, 10, 17, 26, 28, 33, 37, 38]  # also by splitmix64 in plain Python integers
