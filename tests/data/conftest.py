"""A small table with every kind of column, and the folder that ingest makes of it."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys.core.manifest import Manifest
from recsys.core.schema import CategoricalFeature, IdEncoding, KeyType, NumericFeature, NumericTransform
from recsys.data.dataset import SplitConfig
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.table import FileKind, TableDataset
from recsys.data.writer import stored_name

OPTIONS = IngestOptions(seed=3, rows_per_file=70, chunk_rows=64)
CATEGORICAL = (
    CategoricalFeature(name="text", min_count=2),
    CategoricalFeature(name="number", key_type=KeyType.INTEGER),
    CategoricalFeature(name="hashed", encoding=IdEncoding.HASH),
    CategoricalFeature(name="tags", multi_valued=True, max_length=3),
)
NUMERIC = tuple(NumericFeature(name=transform.value, transform=transform) for transform in NumericTransform)


def small_frame(num_rows: int = 500) -> pl.DataFrame:
    """Rows with skewed ids, nulls, empty texts, unicode, extreme integers and lists of 0 to 4 tags."""
    rows = range(num_rows)
    texts = ["a", "a", "b", "ü→🙂", "", None, " ", "a "]
    numbers = [1, 1, 2, -1, 2**63 - 1, None, 0]
    return pl.DataFrame(
        {
            "label": [int(i * i % 7 < 2) for i in rows],
            **{f.name: [None if i % 11 == 0 else (i * 37 % 101 - 20) / 3 for i in rows] for f in NUMERIC},
            "text": [texts[i * 5 % 8] if i % 13 else f"rare {i}" for i in rows],
            "number": [numbers[i * 3 % 7] for i in rows],
            "hashed": [f"h{i % 17}" for i in rows],
            "tags": ["|".join(f"t{i % (k + 2)}" for k in range(i % 5)) for i in rows],
            "user": [f"u{i % 9}" for i in rows],
        },
        schema_overrides={"number": pl.Int64},
    )


def read_split(folder: Path, split: str, columns: list[str]) -> pl.DataFrame:
    """Columns of a split's rows in the order of its files; those of `passthrough` as they were before ingest."""
    manifest = Manifest.read(folder)
    kept = manifest.schema.passthrough
    frame = pl.concat(pl.read_parquet(folder / file) for file in manifest.splits[split].files)
    stored = {name: stored_name(name, manifest.schema) if name in kept else name for name in columns}
    return frame.select(pl.col(name).alias(wanted) for wanted, name in stored.items())


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., TableDataset]:
    """`dataset(frame, ...)`: a Parquet data set of `frame` with the schema of `small_frame`."""

    def build(frame: pl.DataFrame, split: SplitConfig = SplitConfig()) -> TableDataset:  # noqa: B008
        path = tmp_path / "raw.parquet"
        frame.write_parquet(path)
        return TableDataset(
            files=(str(path),),
            kind=FileKind.PARQUET,
            label="label",
            numeric=NUMERIC,
            categorical=CATEGORICAL,
            passthrough=("user", "text"),
            split=split,
        )

    return build


@pytest.fixture
def folder(tmp_path: Path, dataset: Callable[..., TableDataset]) -> Path:
    """`small_frame` ingested."""
    ingest(dataset(small_frame()), tmp_path / "ingested", options=OPTIONS)
    return tmp_path / "ingested"
