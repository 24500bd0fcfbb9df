"""Encoded rows in memory, by column, and how a batch is gathered from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.batch import Batch
from recsys.core.errors import DataError
from recsys.core.labels import label_columns
from recsys.core.manifest import Manifest
from recsys.core.names import WEIGHT, WEIGHTS_SUFFIX
from recsys.core.schema import CategoricalFeature, Schema

BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Jagged:
    """A multi-valued column of n rows: `values` int64 (N,), `offsets` int64 (n + 1,), `weights` float32 (N,) if any."""

    values: Tensor
    offsets: Tensor
    weights: Tensor | None = None

    def select(self, rows: Tensor) -> "Jagged":
        """These rows, in this order."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        offsets = torch.cat([lengths.new_zeros(1), torch.cumsum(lengths, 0)])
        shift = torch.repeat_interleave(starts - offsets[:-1], lengths)
        places = torch.arange(shift.numel()) + shift
        return Jagged(self.values[places], offsets, None if self.weights is None else self.weights[places])

    @staticmethod
    def concat(parts: Sequence["Jagged"]) -> "Jagged":
        """The rows of all parts."""
        lengths = torch.cat([part.offsets.diff() for part in parts])
        offsets = torch.cat([lengths.new_zeros(1), torch.cumsum(lengths, 0)])
        weights = [part.weights for part in parts if part.weights is not None]
        return Jagged(torch.cat([part.values for part in parts]), offsets, torch.cat(weights) if weights else None)


@dataclass(frozen=True)
class Columns:
    """n rows of a dataset file.

    `dense` float32 (n, num_dense), `labels` float32 (n,) or of T tasks (n, T), `weights` float32 (n,) where rows have
    any, `ids` int64 (n, S) of the S single-valued columns in schema order; the multi-valued ones by their place among
    all categorical columns. A row's ids lie side by side, because rows are gathered in random order: one column at a
    time, every id would miss the cache.
    """

    dense: Tensor
    labels: Tensor
    ids: Tensor
    jagged: dict[int, Jagged]
    weights: Tensor | None = None

    def select(self, rows: Tensor) -> "Columns":
        """These rows, in this order."""
        jagged = {place: column.select(rows) for place, column in self.jagged.items()}
        dense, labels, ids = (each.index_select(0, rows) for each in (self.dense, self.labels, self.ids))
        weights = None if self.weights is None else self.weights.index_select(0, rows)
        return Columns(dense, labels, ids, jagged, weights)

    @staticmethod
    def concat(parts: Sequence["Columns"]) -> "Columns":
        """The rows of all parts."""
        if len(parts) == 1:
            return parts[0]
        jagged = {place: Jagged.concat([part.jagged[place] for part in parts]) for place in parts[0].jagged}
        weights = [part.weights for part in parts if part.weights is not None]
        return Columns(
            torch.cat([part.dense for part in parts]),
            torch.cat([part.labels for part in parts]),
            torch.cat([part.ids for part in parts]),
            jagged,
            torch.cat(weights) if weights else None,
        )

    def to_batch(self, names: list[str], mean_weight: float) -> Batch:
        """All rows as a batch; `names` are the categorical columns in schema order, `mean_weight` as `Batch` has it."""
        num_rows = self.labels.shape[0]
        if not self.jagged:
            values = self.ids.t().reshape(-1)
            lengths, offsets = torch.ones_like(values), torch.arange(values.numel() + 1)
        else:
            single = iter(self.ids.t())
            ones = torch.ones(num_rows, dtype=torch.int64)
            columns = [self.jagged.get(place) for place in range(len(names))]
            values = torch.cat([next(single) if column is None else column.values for column in columns])
            lengths = torch.cat([ones if column is None else column.offsets.diff() for column in columns])
            offsets = torch.cat([lengths.new_zeros(1), torch.cumsum(lengths, 0)])
        sparse = KeyedJaggedTensor(
            keys=names,
            values=values,
            weights=self._id_weights(len(names)),
            lengths=lengths,
            offsets=offsets,
            stride=num_rows,
        )
        return Batch(self.dense, sparse, self.labels, self.weights, mean_weight)

    def _id_weights(self, num_columns: int) -> Tensor | None:
        """Of the ids of all columns, 1 where a column has none; None where none has any."""
        if all(column.weights is None for column in self.jagged.values()):
            return None
        ones = torch.ones(self.labels.shape[0])
        columns = [self.jagged.get(place) for place in range(num_columns)]
        parts = [(ones, None) if c is None else (torch.ones(c.values.numel()), c.weights) for c in columns]
        return torch.cat([one if weights is None else weights for one, weights in parts])


def read_columns(path: Path, manifest: Manifest, *, num_rows: int, num_labels: int = 1) -> Columns:
    """One encoded file, with the first `num_labels` of the schema's labels.

    Raises:
        DataError: it is unreadable, lacks a column, has another number of rows, or holds an id out of range.
    """
    schema = manifest.schema
    labels = label_columns(schema.labels)[:num_labels]
    frame = _read_frame(path, schema, labels)
    if frame.height != num_rows:
        raise DataError(f"{path}: {frame.height} rows, the manifest says {num_rows}. Run ingest again.")
    single: list[Tensor] = []
    jagged: dict[int, Jagged] = {}
    for place, feature in enumerate(schema.categorical):
        column = frame[feature.name]
        if feature.multi_valued:
            jagged[place] = _jagged(frame, feature, path, manifest)
        else:
            single.append(_ids(column, path, manifest))
    dense = [_floats(frame[feature.name], path) for feature in schema.numeric]
    return Columns(
        _side_by_side(dense, num_rows, torch.float32),
        _labels([_floats(frame[name], path) for name in labels]),
        _side_by_side(single, num_rows, torch.int64),
        jagged,
        _floats(frame[WEIGHT], path) if schema.weight else None,
    )


def _labels(columns: Sequence[Tensor]) -> Tensor:
    """As `Batch` has them."""
    return columns[0] if len(columns) == 1 else torch.stack(list(columns), dim=1)


def _read_frame(path: Path, schema: Schema, labels: Sequence[str]) -> pl.DataFrame:
    weight = [WEIGHT] if schema.weight else []
    categorical = [name for f in schema.categorical for name in (f.name, f.name + WEIGHTS_SUFFIX * bool(f.weights))]
    names = [*labels, *weight, *(f.name for f in schema.numeric), *dict.fromkeys(categorical)]
    try:
        return pl.read_parquet(path, columns=names, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path}: not a readable dataset file ({str(error).splitlines()[0]}). Run ingest again."
        ) from error


def _jagged(frame: pl.DataFrame, feature: CategoricalFeature, path: Path, manifest: Manifest) -> Jagged:
    column = frame[feature.name]
    lengths = column.list.len().cast(pl.Int64).to_torch()
    offsets = torch.cat([lengths.new_zeros(1), torch.cumsum(lengths, 0)])
    values = _ids(column.explode(empty_as_null=False, keep_nulls=True), path, manifest)
    if not feature.weights:
        return Jagged(values, offsets)
    weights = _floats(frame[feature.name + WEIGHTS_SUFFIX].explode(empty_as_null=False, keep_nulls=True), path)
    if weights.numel() != values.numel():
        raise DataError(f"{path}, column {feature.name!r}: not as many weights as values. Run ingest again.")
    return Jagged(values, offsets, weights)


def _side_by_side(columns: Sequence[Tensor], num_rows: int, dtype: torch.dtype) -> Tensor:
    """(num_rows, number of columns), in blocks that the cache holds: as a whole it takes twice as long."""
    rows = torch.empty(num_rows, len(columns), dtype=dtype)
    for start in range(0, num_rows if columns else 0, BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        torch.stack([column[block] for column in columns], dim=1, out=rows[block])
    return rows


def _ids(column: pl.Series, path: Path, manifest: Manifest) -> Tensor:
    limit = manifest.categorical[column.name].num_embeddings
    if column.dtype != pl.Int64 or column.null_count():
        raise DataError(
            f"{path}, column {column.name!r}: {column.dtype} with {column.null_count()} nulls, not Int64 ids."
        )
    ids = column.to_torch()
    if limit is not None and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < limit:
        at = int(((ids < 0) | (ids >= limit)).nonzero()[0])
        raise DataError(
            f"{path}, column {column.name!r}, value {at}: id {int(ids[at])} lies outside [0, {limit}), the vocabulary "
            "of the manifest. The file belongs to another ingest run: run ingest again."
        )
    return ids


def _floats(column: pl.Series, path: Path) -> Tensor:
    values = column.cast(pl.Float32).to_torch()
    if column.null_count() or not bool(torch.isfinite(values).all()):
        raise DataError(f"{path}, column {column.name!r}: holds a value that is no finite number. Run ingest again.")
    return values
