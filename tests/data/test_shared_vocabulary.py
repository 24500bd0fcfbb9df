"""Columns that share a vocabulary: one set of ids, counted together, stored once, encoded alike everywhere."""

from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import torch
import xxhash

from recsys.core.errors import ConfigError
from recsys.core.manifest import Manifest
from recsys.core.schema import CategoricalFeature, IdEncoding, KeyType, Schema
from recsys.core.specs import Pooling, Read
from recsys.data.dataset import SplitConfig, SplitMethod
from recsys.data.encoder import load_encoder, vocabulary_path
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.loader import LoaderOptions, ParquetLoader
from recsys.data.raw import border_tensors
from recsys.data.table import FileKind, TableDataset

ITEMS = ["a", "b", "c", "d", "only seen in histories"]
CATEGORICAL = (
    CategoricalFeature(name="seen", multi_valued=True, max_length=3, vocabulary="item"),
    CategoricalFeature(name="item", min_count=2),
    CategoricalFeature(name="user"),
)


def rows() -> pl.DataFrame:
    """200 rows; the fourth value of a history is beyond its limit."""
    seen = [[4], [0, 1, 2, 3], [], [1, 1]]
    return pl.DataFrame(
        {
            "label": [i % 2 for i in range(200)],
            "item": [ITEMS[i % 3] if i else "rare" for i in range(200)],
            "seen": ["|".join(ITEMS[k] for k in seen[i % 4]) for i in range(200)],
            "user": [f"u{i % 5}" for i in range(200)],
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows().write_parquet(tmp_path / "raw.parquet")
    split = SplitConfig(method=SplitMethod.ORDER, train=0.8, validation=0.1, test=0.1)
    dataset = TableDataset(
        files=(str(tmp_path / "raw.parquet"),),
        kind=FileKind.PARQUET,
        label="label",
        categorical=CATEGORICAL,
        split=split,
    )
    ingest(dataset, tmp_path / "data", options=IngestOptions(rows_per_file=50, chunk_rows=37))
    return tmp_path / "data"


def key(text: str) -> int:
    number = xxhash.xxh64_intdigest(text.encode())
    return number - 2**64 if number >= 2**63 else number


def expected_ids() -> dict[str, int]:
    """Ids by frequency in both columns of the first 160 rows, ties by key, twice at least."""
    frame = rows().head(160)
    counts = Counter(frame["item"].to_list())
    for history in frame["seen"].to_list():
        counts.update([value for value in history.split("|") if value][:3])
    kept = [(-count, key(value), value) for value, count in counts.items() if count >= 2]
    return {value: rank + 1 for rank, (_, _, value) in enumerate(sorted(kept))}


def test_both_columns_have_the_ids_of_their_common_frequencies(folder: Path) -> None:
    ids, raw = expected_ids(), rows()
    assert "rare" not in ids and "only seen in histories" in ids
    for split in ("train", "validation", "test"):
        for row in pl.read_parquet(folder / split / "*.parquet").to_dicts():
            given = raw.row(row["__row__"], named=True)
            assert row["item"] == ids.get(given["item"], 0)
            assert row["seen"] == [ids.get(value, 0) for value in given["seen"].split("|") if value][:3]


def test_the_vocabulary_is_stored_once(folder: Path) -> None:
    assert vocabulary_path(folder, "item").exists() and not vocabulary_path(folder, "seen").exists()
    encoder = load_encoder(folder)
    assert encoder.keys.numel() == len(expected_ids()) + 5
    border = border_tensors(rows().head(3), Manifest.read(folder).schema)
    eager, scripted = encoder(border), torch.jit.script(encoder)(border)
    assert all(torch.equal(a, b) for a, b in zip(eager[1], scripted[1], strict=True))


def test_one_feature_is_read_by_both_columns(folder: Path) -> None:
    item, user = Manifest.read(folder).feature_specs()
    assert (item.name, item.max_length, user.name, user.also) == ("item", 1, "user", ())
    assert item.also == (Read(name="seen", source="seen", pooling=Pooling.SUM, max_length=3),)
    assert item.num_embeddings == len(expected_ids()) + 1
    known = Manifest.read(folder).categorical
    assert known["seen"].octave_counts == known["item"].octave_counts == item.octave_counts
    assert (known["seen"].max_length, known["item"].max_length) == (4, 1)
    batch = next(ParquetLoader(folder, "train", LoaderOptions(batch_size=16)).epoch(0))
    assert batch.sparse.keys() == ["seen", "item", "user"]


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (CategoricalFeature(name="b", vocabulary="c"), r"vocabulary='c' of feature 'b': no categorical feature"),
        (CategoricalFeature(name="b", vocabulary="b"), r"vocabulary='b' of feature 'b': no categorical feature"),
        (CategoricalFeature(name="b", vocabulary="a", key_type=KeyType.INTEGER), r"key_type=INTEGER.*STRING"),
        (CategoricalFeature(name="b", vocabulary="a", encoding=IdEncoding.HASH), r"encoding=HASH.*VOCABULARY"),
        (CategoricalFeature(name="b", vocabulary="a", min_count=3), r"min_count=3 of feature 'b'.*Set min_count there"),
    ],
)
def test_impossible_sharing_is_refused(feature: CategoricalFeature, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schema(label="y", categorical=(CategoricalFeature(name="a"), feature))


def test_pooling_none_is_for_models() -> None:
    with pytest.raises(ConfigError, match=r"pooling=NONE of feature 'a'.*Set SUM, MEAN or WEIGHTED"):
        CategoricalFeature(name="a", pooling=Pooling.NONE)
