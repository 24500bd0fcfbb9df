"""What the quality page says, against plain counts of the raw rows."""

from pathlib import Path

import polars as pl
import pytest

from pipelines.predictions import split_files
from pipelines.quality import heavy_values
from recsys.core.manifest import Manifest
from recsys.core.schema import CategoricalFeature, KeyType, NumericFeature, NumericTransform
from recsys.data.dataset import SplitConfig, SplitMethod
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.table import FileKind, TableDataset
from recsys.evaluate.quality import Quality, assess
from recsys.evaluate.quality_page import render_quality

ROWS = 1000


def raw() -> pl.DataFrame:
    """The last tenth, the test rows, has other numbers, ids that train lacks, and more labels of 1."""
    late = [i >= 900 for i in range(ROWS)]
    return pl.DataFrame(
        {
            "y": [int(i % (2 if late[i] else 4) == 0) for i in range(ROWS)],
            "price": [None if i % 10 == 1 else float(i % 50 + 100 * late[i]) for i in range(ROWS)],
            "word": ["" if i % 5 == 2 else ("<b>new" if late[i] and i % 2 else f"w{i % 3}") for i in range(ROWS)],
            "user": [i % 7 for i in range(ROWS)],
        }
    )


@pytest.fixture(scope="module")
def quality(tmp_path_factory: pytest.TempPathFactory) -> Quality:
    path = tmp_path_factory.mktemp("quality")
    raw().write_parquet(path / "raw.parquet")
    dataset = TableDataset(
        files=(str(path / "raw.parquet"),),
        kind=FileKind.PARQUET,
        label="y",
        numeric=(NumericFeature(name="price", transform=NumericTransform.IDENTITY),),
        categorical=(CategoricalFeature(name="word"), CategoricalFeature(name="user", key_type=KeyType.INTEGER)),
        split=SplitConfig(method=SplitMethod.ORDER),
    )
    manifest = ingest(dataset, path / "data", options=IngestOptions(rows_per_file=300))
    return assessed(path / "data", manifest)


def assessed(data: Path, manifest: Manifest) -> Quality:
    heavy = {feature.name: heavy_values(data, feature) for feature in manifest.schema.categorical}
    return assess(manifest, lambda split, columns: split_files(data, split, columns), heavy, {"full": 100, "pq": None})


def test_counts(quality: Quality) -> None:
    price, word, user = quality.features
    assert quality.rows == {"train": 800, "validation": 100, "test": 100}
    assert quality.positive == {"train": 0.25, "validation": 0.25, "test": 0.5}
    assert [count for _, count, _ in quality.label_steps] == [50] * 20
    assert quality.label_steps[-1][2] == pytest.approx(0.5, abs=0.02)
    assert price.missing == {"train": 0.1} and sum(price.shares) == pytest.approx(1)
    assert word.missing == {"train": 0.2, "validation": 0.2, "test": 0.2}
    assert word.unseen == {"train": 0.0, "validation": 0.0, "test": 0.4}
    assert dict(word.heavy)[""] == 0.2 and {value for value, _ in word.heavy} == {"", "w0", "w1", "w2"}
    assert (user.num_keys, user.num_ids) == (7, 8)
    assert price.drift["test"] > 0.25 > price.drift["validation"] and word.drift["test"] > 0.25 > user.drift["test"]


def test_the_page_tells_it_and_escapes(quality: Quality) -> None:
    page = render_quality(quality)
    assert "1,000 rows; label 1 on 25.00% in train" in page and "Test differs much from train in price, word" in page
    assert "(missing) 20.0%" in page and "<svg" in page and "http" not in page.replace("http-equiv", "")
    assert "<b>new" not in page
