"""Every transform against plain Python, and ingest = eager = scripted on adversarial rows."""

import math
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys.core.errors import ConfigError, DataError
from recsys.core.manifest import Manifest
from recsys.core.schema import (
    MISSING_KEY,
    CategoricalFeature,
    Derivation,
    IdEncoding,
    KeyType,
    NumericFeature,
    NumericTransform,
    Schema,
    TimeForm,
    Timestamp,
)
from recsys.data.dataset import SPLIT_NAMES
from recsys.data.encoder import load_encoder, vocabulary_path
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.raw import border_tensors
from recsys.data.statistics import BucketSample
from recsys.data.table import FileKind, TableDataset
from recsys.ops.hashing import mix64

START = datetime(2024, 2, 28, 22, 30, tzinfo=UTC)  # a Wednesday before a leap day
TIMESTAMPS = (
    Timestamp(name="time"),
    Timestamp(name="seconds", form=TimeForm.SECONDS),
    Timestamp(name="digits", form=TimeForm.PATTERN, pattern="%y%m%d%H"),
)
NUMERIC = (
    NumericFeature(name="price", transform=NumericTransform.IDENTITY),
    NumericFeature(name="no_price", transform=NumericTransform.MISSING, of=("price",)),
    NumericFeature(name="log_price", of=("price",)),
    NumericFeature(name="filled_price", transform=NumericTransform.STANDARD, of=("price",), fill=40.0),
    NumericFeature(name="filled_age", transform=NumericTransform.LOG1P, of=("time", "seconds"), fill=-1.5),
    NumericFeature(name="age", transform=NumericTransform.IDENTITY, of=("time", "seconds")),
    NumericFeature(name="no_age", transform=NumericTransform.MISSING, of=("time", "seconds")),
)
CATEGORICAL = (
    CategoricalFeature(name="user", key_type=KeyType.INTEGER),
    CategoricalFeature(name="item", max_size=3, num_oov=4),
    CategoricalFeature(name="hour", derive=Derivation.HOUR, of=("time",)),
    CategoricalFeature(name="weekday", derive=Derivation.WEEKDAY, of=("time",)),
    CategoricalFeature(name="hour_of_digits", derive=Derivation.HOUR, of=("digits",)),
    CategoricalFeature(name="price_range", derive=Derivation.QUANTILE, of=("price",), num_buckets=4),
    CategoricalFeature(name="cost", derive=Derivation.QUANTILE, num_buckets=3),
    CategoricalFeature(name="user_x_item", derive=Derivation.CROSS, of=("user", "item"), min_count=2),
    CategoricalFeature(name="hashed_cross", derive=Derivation.CROSS, of=("item", "user"), encoding=IdEncoding.HASH),
)


def rows(count: int = 300) -> pl.DataFrame:
    times = [None if i % 13 == 5 else START + timedelta(minutes=37 * i) for i in range(count)]
    return pl.DataFrame(
        {
            "y": [i * i % 7 < 2 for i in range(count)],
            "price": [None if i % 11 == 3 else (i * 37 % 101 - 20) / 3 for i in range(count)],
            "cost": [float(i % 2) for i in range(count)],
            "user": [i % 5 for i in range(count)],
            "item": [f"i{int(math.sqrt(i))}" for i in range(count)],
            "time": [None if t is None else t.isoformat() for t in times],
            "seconds": [None if i % 17 == 4 else int(START.timestamp()) - 60 * i for i in range(count)],
            "digits": [None if t is None else t.strftime("%y%m%d%H") for t in times],
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("transforms")
    rows().write_parquet(path / "raw.parquet")
    dataset = TableDataset(
        files=(str(path / "raw.parquet"),),
        kind=FileKind.PARQUET,
        label="y",
        numeric=NUMERIC,
        categorical=CATEGORICAL,
        timestamps=TIMESTAMPS,
        passthrough=("time",),
    )
    ingest(dataset, path / "data", options=IngestOptions(seed=3, rows_per_file=70, chunk_rows=32))
    return path / "data"


def encoded(folder: Path) -> list[dict[str, Any]]:
    frame = pl.concat([pl.read_parquet(folder / split / "*.parquet") for split in SPLIT_NAMES])
    return frame.sort("__row__").to_dicts()


def keys_by_id(folder: Path, name: str) -> dict[int, int]:
    return dict(enumerate(pl.read_parquet(vocabulary_path(folder, name))["key"].to_list(), start=1))


def test_times_become_hours_weekdays_and_ages(folder: Path) -> None:
    raw, found = rows().to_dicts(), encoded(folder)
    for name, form in (("hour", "%H"), ("weekday", "%u"), ("hour_of_digits", "%H")):
        known = keys_by_id(folder, name)
        for given, row in zip(raw, found, strict=True):
            time = given["time"] and datetime.fromisoformat(given["time"])
            expected = int(time.strftime(form)) - (name == "weekday") if time else MISSING_KEY
            assert known[row[name]] == expected
    for given, row in zip(raw, found, strict=True):
        both = given["time"] and given["seconds"]
        age = datetime.fromisoformat(given["time"]).timestamp() - given["seconds"] if both else 0
        assert (row["age"], row["no_age"]) == (age, float(not both))


def test_missing_numbers_have_an_indicator(folder: Path) -> None:
    for given, row in zip(rows().to_dicts(), encoded(folder), strict=True):
        assert row["no_price"] == float(given["price"] is None)
        assert row["price"] == pytest.approx(given["price"] or 0.0, abs=1e-6)


def test_missing_numbers_are_filled_before_the_transform(folder: Path) -> None:
    raw, found = rows().to_dicts(), encoded(folder)
    filled = [40.0 if given["price"] is None else given["price"] for given in raw]
    train = set(pl.read_parquet(folder / "train" / "*.parquet")["__row__"].to_list())
    fitted = [filled[row] for row in train]
    mean, known = sum(fitted) / len(fitted), Manifest.read(folder).numeric["filled_price"]
    std = math.sqrt(sum((value - mean) ** 2 for value in fitted) / len(fitted))
    assert known.num_missing == 0
    assert [known.mean, known.std] == pytest.approx([mean, std])
    for value, row in zip(filled, found, strict=True):
        assert row["filled_price"] == pytest.approx((value - mean) / std, abs=1e-5)
        if row["no_age"]:
            assert row["filled_age"] == pytest.approx(-math.log(2.5))


@pytest.mark.parametrize(("fill", "transform"), [(math.inf, "IDENTITY"), (math.nan, "LOG1P"), (0.0, "MISSING")])
def test_what_cannot_fill(fill: float, transform: str) -> None:
    with pytest.raises(ConfigError, match="it must be finite, and nothing is missing once it is filled"):
        NumericFeature(name="price", transform=NumericTransform[transform], fill=fill)


def test_buckets_hold_equally_many_training_rows(folder: Path) -> None:
    manifest = Manifest.read(folder)
    train = pl.read_parquet(folder / "train" / "*.parquet")
    prices = rows()["price"][train["__row__"].to_list()].cast(pl.Float32)
    bounds, known = manifest.bounds["price_range"], keys_by_id(folder, "price_range")
    assert len(bounds) == 3 and sorted(bounds) == list(bounds)
    buckets = [known[i] for i in train["price_range"].to_list()]
    expected = [MISSING_KEY if p is None else sum(p >= bound for bound in bounds) for p in prices.to_list()]
    assert buckets == expected
    sizes = Counter(buckets)
    assert max(sizes[i] for i in range(4)) - min(sizes[i] for i in range(4)) <= 5  # ties stay together
    counts = dict(pl.read_parquet(vocabulary_path(folder, "price_range")).iter_rows())
    assert counts == dict(sizes)
    assert len(manifest.bounds["cost"]) == 1, "two different values have one bound"


def test_a_vocabulary_of_bounded_size_hashes_what_it_lacks(folder: Path) -> None:
    manifest = Manifest.read(folder)
    statistics = manifest.categorical["item"]
    assert statistics.num_embeddings == 3 + 4 and statistics.num_keys > 3
    counts = Counter(row["item"] for row in encoded(folder))
    assert set(counts) <= set(range(7)) and len(set(counts) - {1, 2, 3}) > 1
    train = pl.read_parquet(folder / "train" / "*.parquet").to_dicts()
    assert statistics.oov_count == sum(row["item"] not in (1, 2, 3) for row in train)


def test_crosses_tell_pairs_apart(folder: Path) -> None:
    raw, found = rows(), encoded(folder)
    pairs = list(zip(raw["user"], raw["item"], strict=True))
    hashed = [row["hashed_cross"] for row in found]
    assert len(set(zip(pairs, hashed, strict=True))) == len(set(pairs)) == len(set(hashed))
    border = border_tensors(raw, Manifest.read(folder).schema)
    assert hashed == mix64(mix64(border["item"]) + border["user"]).tolist()
    train = pl.read_parquet(folder / "train" / "*.parquet")
    counts = Counter(pairs[i] for i in train["__row__"].to_list())
    for pair, row in zip(pairs, found, strict=True):
        assert (row["user_x_item"] != 0) == (counts[pair] >= 2)


ADVERSARIAL = pl.DataFrame(
    {
        "price": [None, float("nan"), -1.0, 1e30, -0.0, 1e-30, 33.3],
        "cost": [None, 0.0, 1.0, -5.0, 0.5, 1e30, float("nan")],
        "user": [2**63 - 1, -1, None, 0, -(2**63), 4, 5],
        "item": ["", None, "ü→🙂", " i3", "i3", "unseen", "1e3"],
        "time": ["", None, "1969-12-31T23:59:59", "0001-01-01", "9999-12-31 23:59:59", "2024-02-29",
                 "2024-02-29T10:00:00+05:30"],
        "seconds": [None, -1, 0, 253_402_300_799, -86_400, 1_709_164_800, 86_399],
        "digits": ["", None, "70010100", "24022923", "69123123", "00022900", "99123100"],
    },
    schema_overrides={"user": pl.Int64},
)  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 7])
def test_scripted_equals_eager_equals_ingest_on_adversarial_rows(folder: Path, tmp_path: Path, count: int) -> None:
    encoder, schema = load_encoder(folder), Manifest.read(folder).schema
    border = border_tensors(ADVERSARIAL.head(count), schema)
    eager, scripted = encoder(border), torch.jit.script(encoder)(border)
    for first, second in zip([eager[0], *eager[1], *eager[2]], [scripted[0], *scripted[1], *scripted[2]], strict=True):
        assert torch.equal(first, second) and first.dtype == second.dtype
    assert bool(torch.isfinite(eager[0]).all())
    for feature, ids in zip(schema.categorical, eager[1], strict=True):
        limit = Manifest.read(folder).categorical[feature.name].num_embeddings
        assert limit is None or not ids.numel() or 0 <= int(ids.min()) <= int(ids.max()) < limit


def test_rows_read_again_from_the_sample_encode_alike(folder: Path) -> None:
    schema = Manifest.read(folder).schema
    sample, test = pl.read_parquet(folder / "raw_sample.parquet"), pl.read_parquet(folder / "test" / "*.parquet")
    dense, ids, _ = torch.jit.script(load_encoder(folder))(border_tensors(sample, schema))
    for i, numeric in enumerate(schema.numeric):
        assert torch.equal(dense[:, i], test[numeric.name].to_torch())
    for values, feature in zip(ids, schema.categorical, strict=True):
        assert torch.equal(values, test[feature.name].to_torch())


def test_a_bucket_sample_depends_on_no_order() -> None:
    feature = CategoricalFeature(name="x", derive=Derivation.QUANTILE, num_buckets=10)
    values, positions = torch.randn(5000), torch.arange(5000)
    found = []
    for order in (torch.arange(5000), torch.randperm(5000)):
        sample = BucketSample(feature)
        for part in order.split(700):
            sample.update(positions[part], values[part])
        found.append(sample.finish())
    assert found[0][0] == found[1][0] and found[0][1].equals(found[1][1])
    expected = torch.quantile(values, torch.arange(1, 10) / 10)
    assert torch.tensor(found[0][0]).sub(expected).abs().max() < 0.02


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CategoricalFeature(name="a", of=("b",)), r"of=\['b'\] of feature 'a' with derive=NONE"),
        (lambda: CategoricalFeature(name="a", derive=Derivation.CROSS, of=("b",)), "a CROSS needs two columns"),
        (lambda: CategoricalFeature(name="a", derive=Derivation.QUANTILE), "num_buckets=0 .*QUANTILE needs 2"),
        (lambda: CategoricalFeature(name="a", num_oov=0), "num_oov=0"),
        (lambda: Timestamp(name="a", form=TimeForm.PATTERN), "form PATTERN needs a pattern"),
        (
            lambda: Schema(label="y", categorical=(CategoricalFeature(name="h", derive=Derivation.HOUR, of=("t",)),)),
            r"'h' is made of \['t'\]: these must be timestamps",
        ),
        (
            lambda: Schema(
                label="y",
                numeric=(NumericFeature(name="a"),),
                categorical=(CategoricalFeature(name="c", derive=Derivation.CROSS, of=("a", "b")),),
            ),
            "must be single-valued categorical features",
        ),
        (
            lambda: Schema(label="y", numeric=(NumericFeature(name="a"),), timestamps=(Timestamp(name="a"),)),
            r"raw column\(s\) \['a'\] are read in two ways",
        ),
    ],
)
def test_impossible_schemas(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_a_value_that_is_no_time_is_refused(tmp_path: Path) -> None:
    rows().with_columns(time=pl.lit("01/02/2024")).write_parquet(tmp_path / "raw.parquet")
    dataset = TableDataset(
        files=(str(tmp_path / "raw.parquet"),), kind=FileKind.PARQUET, label="y", timestamps=TIMESTAMPS[:1],
        categorical=(CategoricalFeature(name="user", key_type=KeyType.INTEGER),),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"row 1 .*column 'time': '01/02/2024' is no time of form iso"):
        ingest(dataset, tmp_path / "out", options=IngestOptions())
