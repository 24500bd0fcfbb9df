"""Encoded rows to Parquet files, one for each shard and split."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
from torch import Tensor

from recsys.core.labels import LABEL, label_columns
from recsys.core.manifest import Split
from recsys.core.names import WEIGHT, WEIGHTS_SUFFIX
from recsys.core.schema import Schema
from recsys.data.dataset import SPLIT_NAMES
from recsys.data.encoder import FeatureEncoder
from recsys.data.raw import ROW, tensors_of

RAW_PREFIX = "__raw__"
"""Before the name of a passthrough column that is a feature too: the plain name holds the encoded ids."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of a split, relative to the dataset folder."""

    file: str
    num_rows: int
    num_positive: int  # rows whose label is 1


def encoded_frame(raw: pl.DataFrame, schema: Schema, encoder: FeatureEncoder) -> pl.DataFrame:
    """The columns of a dataset file, as the manifest's docstring lists them, for a normalised raw frame."""
    tensors = tensors_of(raw, schema)
    dense, ids, offsets = encoder(tensors)
    weights = encoder.weights(tensors)
    columns = [raw[ROW]]
    columns += [raw[name].alias(to) for name, to in zip(schema.labels, label_columns(schema.labels), strict=True)]
    columns += [raw[schema.weight].alias(WEIGHT)] if schema.weight else []
    by_column = dense.t().contiguous()
    columns += [pl.Series(feature.name, by_column[i].numpy()) for i, feature in enumerate(schema.numeric)]
    for feature, values, offset, weight in zip(schema.categorical, ids, offsets, weights, strict=True):
        if feature.multi_valued:
            columns.append(_lists(feature.name, values, offset))
            columns += [_lists(feature.name + WEIGHTS_SUFFIX, weight, offset)] if feature.weights else []
        else:
            columns.append(pl.Series(feature.name, values.numpy()))
    for name in schema.passthrough:
        columns.append(raw[name].alias(stored_name(name, schema)))
    return pl.DataFrame(columns)


def _lists(name: str, values: Tensor, offsets: Tensor) -> pl.Series:
    lists = pa.LargeListArray.from_arrays(pa.array(offsets.numpy()), pa.array(values.numpy()))
    column = pl.from_arrow(lists)
    assert isinstance(column, pl.Series)
    return column.alias(name)


def stored_name(passthrough: str, schema: Schema) -> str:
    """Column of a dataset file that holds a passthrough column as it was."""
    features = {*(f.name for f in schema.numeric), *(f.name for f in schema.categorical)}
    return RAW_PREFIX + passthrough if passthrough in features else passthrough


def write_shard(folder: Path, shard: int, frame: pl.DataFrame, codes: Tensor) -> dict[str, Part]:
    """Write the rows of a shard, `<split>/part-<shard>.parquet` for each split that has any of them.

    Args:
        folder: of the data set.
        shard: its number.
        frame: as `encoded_frame` makes it.
        codes: int8 (B,), the place of each row's split in `SPLIT_NAMES`.
    """
    parts: dict[str, Part] = {}
    for code, split in enumerate(SPLIT_NAMES):
        rows = frame.filter(pl.Series((codes == code).numpy()))
        if rows.height:
            name = f"{split}/part-{shard:05d}.parquet"
            (folder / split).mkdir(exist_ok=True)
            # lz4, not zstd: ids barely compress further, and the loader decodes every epoch.
            rows.write_parquet(folder / name, compression="lz4", statistics=False)
            parts[split] = Part(file=name, num_rows=rows.height, num_positive=int((rows[LABEL] == 1).sum()))
    return parts


def split_of(parts: Iterable[Part]) -> Split:
    """The split that these files make up."""
    files = list(parts)
    return Split(
        files=tuple(part.file for part in files),
        file_rows=tuple(part.num_rows for part in files),
        num_positive=sum(part.num_positive for part in files),
    )
