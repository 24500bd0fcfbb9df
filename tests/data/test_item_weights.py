"""Weights beside the values of a multi-valued column: from files to batches and as the exported encoder has them."""

# mypy: disable-error-code="operator"
# An encoder's method `weights`: TorchScript takes a comment on the line itself for a type.

from pathlib import Path

import polars as pl
import pytest
import torch
from torch import Tensor, nn

from recsys.core.errors import ConfigError, DataError
from recsys.core.manifest import Manifest
from recsys.core.schema import CategoricalFeature
from recsys.core.specs import Pooling
from recsys.data.dataset import SplitConfig, SplitMethod
from recsys.data.encoder import load_encoder
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.loader import LoaderOptions, ParquetLoader
from recsys.data.raw import border_tensors, read_raw
from recsys.data.readers import reader_for
from recsys.data.table import FileKind, TableDataset

ROWS = 150
TAGS = [[f"t{(i * 7 + k) % 11}" for k in range(i % 6)] for i in range(ROWS)]
WEIGHTS = [[(i + k) % 5 / 4 - 0.25 for k in range(i % 6)] for i in range(ROWS)]
FRAME = pl.DataFrame({"y": [i % 3 % 2 for i in range(ROWS)], "user": [f"u{i % 7}" for i in range(ROWS)]})
LISTS = FRAME.with_columns(pl.Series("tags", TAGS), pl.Series("tag_weights", WEIGHTS))
TEXTS = FRAME.with_columns(
    pl.Series("tags", ["|".join(row) for row in TAGS]),
    pl.Series("tag_weights", ["|".join(map(str, row)) for row in WEIGHTS]),
)
FEATURE = CategoricalFeature(
    name="tags", multi_valued=True, max_length=3, pooling=Pooling.WEIGHTED, weights="tag_weights"
)


def table(path: Path, kind: FileKind) -> TableDataset:
    split = SplitConfig(method=SplitMethod.ORDER)
    categorical = (CategoricalFeature(name="user"), FEATURE)
    return TableDataset(files=(str(path),), kind=kind, label="y", categorical=categorical, split=split)


def write(path: Path) -> FileKind:
    if path.suffix == ".csv":
        TEXTS.write_csv(path)
        return FileKind.TEXT
    if path.suffix == ".jsonl":
        LISTS.write_ndjson(path)
        return FileKind.JSONL
    LISTS.write_parquet(path)
    return FileKind.PARQUET


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_weights_reach_batches_beside_their_values(ending: str, tmp_path: Path) -> None:
    source, folder = tmp_path / f"raw.{ending}", tmp_path / "out"
    ingest(table(source, write(source)), folder, options=IngestOptions(rows_per_file=40))
    loader = ParquetLoader(folder, "train", LoaderOptions(batch_size=25, shuffle_rows=60, seed=3, drop_last=False))
    seen = 0
    for batch in loader.epoch(1):
        columns = batch.sparse.to_dict()
        assert columns["user"].weights().tolist() == [1.0] * batch.labels.numel()
        found = columns["tags"].weights().split(columns["tags"].lengths().tolist())
        ids = columns["tags"].values().split(columns["tags"].lengths().tolist())
        for own, keys in zip(found, ids, strict=True):
            assert (own.tolist(), len(keys)) in [(row[:3], len(row[:3])) for row in WEIGHTS]
        seen += sum(map(len, ids))
    assert seen == sum(len(row[:3]) for row in WEIGHTS[: loader.num_rows])


class Both(nn.Module):
    """What an exported file calls of the encoder."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        _, ids, offsets = self.encoder(features)
        return ids, offsets, self.encoder.weights(features)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_the_scripted_encoder_gives_what_ingest_wrote(ending: str, tmp_path: Path) -> None:
    source, folder = tmp_path / f"raw.{ending}", tmp_path / "out"
    ingest(table(source, write(source)), folder, options=IngestOptions())
    manifest = Manifest.read(folder)
    raw = pl.concat(read_raw(source, manifest.schema, reader_for(source, manifest.schema)))
    encoder = Both(load_encoder(folder))
    tensors = border_tensors(raw, manifest.schema)
    assert tensors["tags__weights"].tolist() == [w for row in WEIGHTS for w in row]
    ids, offsets, weights = torch.jit.script(encoder)(tensors)
    assert weights[0].numel() == 0
    files = [file for split in ("train", "validation", "test") for file in manifest.splits[split].files]
    stored = pl.concat(pl.read_parquet(folder / file) for file in files).sort("__row__")
    for name, values in (("tags", ids[1]), ("tags__weights", weights[1])):
        assert stored[name].explode(empty_as_null=False).to_list() == values.tolist()
        assert stored[name].list.len().to_list() == offsets[1].diff().tolist()


BAD = ["0.5|0.5|0.5", "0.5", "a|1", "nan|1", "inf|1", "1|1e39"]


@pytest.mark.parametrize("weights", BAD)
def test_what_is_no_weight_for_each_value_is_refused(weights: str, tmp_path: Path) -> None:
    bad = TEXTS.with_columns(
        tag_weights=pl.when(pl.int_range(ROWS) == 8).then(pl.lit(weights)).otherwise("tag_weights"),
    )
    bad.write_csv(tmp_path / "raw.csv")
    data = table(tmp_path / "raw.csv", FileKind.TEXT)
    with pytest.raises(DataError, match=r"row 9 .*'tag_weights'.*one finite number for each value of 'tags'"):
        ingest(data, tmp_path / "strict", options=IngestOptions())
    manifest = ingest(data, tmp_path / "out", options=IngestOptions(max_rejected=0.01))
    assert manifest.num_rejected == 1


def test_a_schema_says_weights_and_pooling_together() -> None:
    for changes in ({"pooling": Pooling.WEIGHTED}, {"weights": "w"}):
        with pytest.raises(ConfigError, match="Set both or neither"):
            CategoricalFeature(name="tags", multi_valued=True, **changes)
    with pytest.raises(ConfigError, match="multi-valued feature"):
        CategoricalFeature(name="tags", pooling=Pooling.WEIGHTED, weights="w")
