"""Weights of rows from raw files to batches: as written, summed over ranks, refused where they are none."""

from pathlib import Path

import polars as pl
import pytest
import torch

from recsys.core.errors import ConfigError, DataError
from recsys.core.manifest import Manifest
from recsys.core.schema import CategoricalFeature, KeyType, Schema
from recsys.data.dataset import SplitConfig, SplitMethod
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.loader import LoaderOptions, ParquetLoader
from recsys.data.table import FileKind, TableDataset

ROWS = 200
WEIGHTS = [(i * 7 % 11) / 4 if i % 5 else 0.0 for i in range(ROWS)]
FRAME = pl.DataFrame(
    {"y": [i % 3 % 2 for i in range(ROWS)], "item": [i % 9 for i in range(ROWS)], "w": WEIGHTS, "day": range(ROWS)}
)


def table(path: Path, **changes: object) -> TableDataset:
    values: dict[str, object] = {
        "files": (str(path),),
        "label": "y",
        "weight": "w",
        "categorical": (CategoricalFeature(name="item", key_type=KeyType.INTEGER),),
        "split": SplitConfig(method=SplitMethod.ORDER),
        **changes,
    }
    return TableDataset(**values)  # type: ignore[arg-type]


def write(frame: pl.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        frame.write_csv(path)
    elif path.suffix == ".jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_parquet(path)
    return path


@pytest.mark.parametrize(
    ("ending", "kind"), [("csv", FileKind.TEXT), ("parquet", FileKind.PARQUET), ("jsonl", FileKind.JSONL)]
)
def test_weights_arrive_as_written(ending: str, kind: FileKind, tmp_path: Path) -> None:
    source = write(FRAME, tmp_path / f"raw.{ending}")
    ingest(table(source, kind=kind), tmp_path / "out", options=IngestOptions(rows_per_file=70))
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.schema.weight == "w"
    kept = pl.concat(pl.read_parquet(tmp_path / "out" / file) for file in manifest.splits["train"].files)
    assert kept["__weight__"].dtype == pl.Float32
    assert kept["__weight__"].to_list() == WEIGHTS[: kept.height]
    loader = ParquetLoader(tmp_path / "out", "train", LoaderOptions(batch_size=50, shuffle=False, drop_last=False))
    batches = list(loader.epoch(0))
    found = torch.cat([batch.weights for batch in batches if batch.weights is not None])
    assert found.tolist() == WEIGHTS[: kept.height]
    for number, batch in enumerate(batches):
        own = WEIGHTS[number * 50 : number * 50 + batch.labels.numel()]
        assert batch.mean_weight == sum(own) / len(own)


def test_ranks_share_the_mean_weight_of_each_batch(tmp_path: Path) -> None:
    """Also of batches that span windows, and after a restart inside the epoch."""
    source = write(FRAME, tmp_path / "raw.parquet")
    folder = tmp_path / "out"
    ingest(table(source, kind=FileKind.PARQUET), folder, options=IngestOptions(rows_per_file=40))
    options = LoaderOptions(batch_size=24, shuffle_rows=50, seed=1, drop_last=False)
    alone = list(ParquetLoader(folder, "train", options).epoch(2))
    shares = [list(ParquetLoader(folder, "train", options, rank=rank, world_size=2).epoch(2)) for rank in (0, 1)]
    for whole, *parts in zip(alone, *shares, strict=True):
        assert whole.weights is not None
        assert {part.mean_weight for part in parts} == {whole.mean_weight}
        assert whole.mean_weight == pytest.approx(float(whole.weights.double().mean()), rel=1e-12)
        found = [part.weights[: part.labels.numel()] for part in parts if part.weights is not None]
        assert torch.equal(torch.cat(found), whole.weights)
    resumed = list(ParquetLoader(folder, "train", options).epoch(2, 3))
    assert [batch.mean_weight for batch in resumed] == [batch.mean_weight for batch in alone[3:]]


def test_without_weights_batches_have_none(tmp_path: Path) -> None:
    source = write(FRAME, tmp_path / "raw.parquet")
    ingest(table(source, kind=FileKind.PARQUET, weight=""), tmp_path / "out", options=IngestOptions())
    batch = next(ParquetLoader(tmp_path / "out", "train", LoaderOptions(batch_size=50)).epoch(0))
    assert batch.weights is None and batch.mean_weight == 1.0


BAD = {"-0.5": 3, "nan": 17, "inf": 40, "": 41, "heavy": 90, "1e39": 150}


def test_bad_weights_are_refused_by_place_or_left_out(tmp_path: Path) -> None:
    texts = [str(weight) for weight in WEIGHTS]
    for value, row in BAD.items():
        texts[row] = value
    source = write(FRAME.with_columns(pl.Series("w", texts)), tmp_path / "raw.csv")
    with pytest.raises(DataError, match=r"raw.csv, row 4 .*column 'w': '-0.5' is not a weight"):
        ingest(table(source), tmp_path / "strict", options=IngestOptions())
    manifest = ingest(table(source), tmp_path / "out", options=IngestOptions(max_rejected=0.05))
    rejected = pl.read_parquet(tmp_path / "out" / "rejected" / "*.parquet")
    assert manifest.num_rejected == rejected.height == len(BAD)
    assert rejected["row"].to_list() == sorted(row + 1 for row in BAD.values())
    assert set(rejected["column"]) == {"w"}


@pytest.mark.parametrize("column", [pl.lit([1.0]), pl.lit(b"1")])
def test_a_column_that_can_be_no_weight_is_refused(column: pl.Expr, tmp_path: Path) -> None:
    source = write(FRAME.with_columns(column.alias("w")), tmp_path / "raw.parquet")
    with pytest.raises(DataError, match=r"'w'.*not a number"):
        ingest(table(source, kind=FileKind.PARQUET), tmp_path / "out", options=IngestOptions())


def test_a_weight_is_no_feature(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\['w'\] are read in two ways"):
        Schema(label="y", weight="w", categorical=(CategoricalFeature(name="w"),))
    source = write(FRAME.drop("w"), tmp_path / "raw.csv")
    with pytest.raises(DataError, match=r"\['w'\] of the schema are missing"):
        ingest(table(source), tmp_path / "out", options=IngestOptions())
