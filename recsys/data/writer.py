"""Encoded rows to Parquet files of a bounded number of rows."""

from pathlib import Path

import polars as pl
from torch import Tensor

from recsys.core.manifest import Split
from recsys.core.schema import Schema
from recsys.data.raw import LABEL, ROW

RAW_PREFIX = "__raw__"
"""Before the name of a passthrough column that is a feature too: the plain name holds the encoded ids."""


def encoded_frame(
    raw: pl.DataFrame, schema: Schema, encoded: tuple[Tensor, list[Tensor], list[Tensor]]
) -> pl.DataFrame:
    """The columns of a dataset file, as the manifest's docstring lists them, for a normalised raw frame."""
    dense, ids, offsets = encoded
    columns = [raw[ROW], raw[schema.label].alias(LABEL)]
    by_column = dense.t().contiguous()
    columns += [pl.Series(feature.name, by_column[i].numpy()) for i, feature in enumerate(schema.numeric)]
    for feature, values, offset in zip(schema.categorical, ids, offsets, strict=True):
        if feature.multi_valued:
            columns.append(_lists(feature.name, values, offset))
        else:
            columns.append(pl.Series(feature.name, values.numpy()))
    for name in schema.passthrough:
        columns.append(raw[name].alias(stored_name(name, schema)))
    return pl.DataFrame(columns)


def _lists(name: str, values: Tensor, offsets: Tensor) -> pl.Series:
    lengths = offsets.diff()
    frame = pl.DataFrame({"row": lengths.numpy()}).with_row_index("at").select(pl.col("at").repeat_by("row").explode())
    rows = frame.drop_nulls().to_series()
    lists = pl.DataFrame({"at": rows, name: values.numpy()}).group_by("at", maintain_order=True).agg(name)
    every = pl.DataFrame({"at": pl.int_range(lengths.numel(), dtype=pl.UInt32, eager=True)})
    empty = pl.Series([[]], dtype=pl.List(pl.Int64))
    return every.join(lists, on="at", how="left", maintain_order="left")[name].fill_null(empty)


def stored_name(passthrough: str, schema: Schema) -> str:
    """Column of a dataset file that holds a passthrough column as it was."""
    features = {*(f.name for f in schema.numeric), *(f.name for f in schema.categorical)}
    return RAW_PREFIX + passthrough if passthrough in features else passthrough


class SplitWriter:
    """Writes the rows of one split, in order: `<split>/part-00000.parquet` and so on."""

    def __init__(self, folder: Path, split: str, *, rows_per_file: int) -> None:
        self._folder, self._split, self._rows_per_file = folder, split, rows_per_file
        self._waiting: list[pl.DataFrame] = []
        self._num_waiting = 0
        self._files: list[str] = []
        self._file_rows: list[int] = []
        self._num_positive = 0
        (folder / split).mkdir(parents=True, exist_ok=True)

    def write(self, frame: pl.DataFrame) -> None:
        """Add rows; full files are written, the rest waits."""
        if frame.is_empty():
            return
        self._num_positive += int(frame[LABEL].sum())
        self._waiting.append(frame)
        self._num_waiting += frame.height
        if self._num_waiting >= self._rows_per_file:
            rows = pl.concat(self._waiting)
            full = rows.height // self._rows_per_file * self._rows_per_file
            for start in range(0, full, self._rows_per_file):
                self._write_file(rows.slice(start, self._rows_per_file))
            self._waiting, self._num_waiting = [rows.slice(full)], rows.height - full

    def close(self) -> Split:
        """Write what waits and describe the split."""
        if self._num_waiting:
            self._write_file(pl.concat(self._waiting))
        self._waiting, self._num_waiting = [], 0
        return Split(files=tuple(self._files), file_rows=tuple(self._file_rows), num_positive=self._num_positive)

    def _write_file(self, frame: pl.DataFrame) -> None:
        name = f"{self._split}/part-{len(self._files):05d}.parquet"
        # lz4, not zstd: ids barely compress further, and the loader decodes every epoch.
        frame.write_parquet(self._folder / name, compression="lz4", statistics=False)
        self._files.append(name)
        self._file_rows.append(frame.height)
