"""What reads files in bounded pieces: columnar ones here, text in modules of its own; and which one a name asks for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl
import pyarrow as pa

from recsys.core.errors import ConfigError, DataError
from recsys.core.schema import Schema
from recsys.data.blocks import slices
from recsys.data.json_lines import JsonLinesReader
from recsys.data.text import TextReader

PACKED = (".gz", ".zst")


class Reader(Protocol):
    """How the files of one table are read."""

    def count_rows(self, path: Path) -> int:
        """Rows of the file, damaged ones included."""

    def frames(
        self, path: Path, chunk_rows: int, *, first_row: int = 0, keep_damaged: bool = False
    ) -> Iterator[pl.DataFrame]:
        """The rows in order, at most `chunk_rows` at a time.

        Args:
            first_row: where to begin; what stands before is passed over as cheaply as the format allows.
            keep_damaged: a damaged line is an empty row, which the columns `recsys.data.faults.FAULT` and `LINE`
                explain; else it is refused.
        """


@dataclass(frozen=True, kw_only=True)
class ParquetReader:
    """Parquet files, in their own types."""

    def count_rows(self, path: Path) -> int:
        """Rows of the file, from its footer."""
        try:
            return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(path, "Parquet", error) from error

    def frames(
        self, path: Path, chunk_rows: int, *, first_row: int = 0, keep_damaged: bool = False
    ) -> Iterator[pl.DataFrame]:
        """The rows in order, at most `chunk_rows` at a time; no row is damaged.

        Raises:
            DataError: the file is truncated or is not Parquet.
        """
        try:
            rows = pl.scan_parquet(path, glob=False).slice(first_row)
            yield from rows.collect_batches(chunk_size=chunk_rows, maintain_order=True)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(path, "Parquet", error) from error


@dataclass(frozen=True, kw_only=True)
class ArrowReader:
    """Arrow IPC files (Feather version 2), in their own types; one record batch in memory at a time."""

    def count_rows(self, path: Path) -> int:
        """Rows of the file."""
        return sum(batch.height for batch in self._batches(path))

    def frames(
        self, path: Path, chunk_rows: int, *, first_row: int = 0, keep_damaged: bool = False
    ) -> Iterator[pl.DataFrame]:
        """The rows in order, at most `chunk_rows` at a time; no row is damaged.

        Raises:
            DataError: the file is truncated or is not Arrow.
        """
        row = 0
        for batch in self._batches(path):
            yield from slices(batch, chunk_rows, first_row=first_row - row)
            row += batch.height

    def _batches(self, path: Path) -> Iterator[pl.DataFrame]:
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
                for number in range(file.num_record_batches):
                    frame = pl.from_arrow(file.get_batch(number))
                    assert isinstance(frame, pl.DataFrame)
                    yield frame
        except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(path, "Arrow", error) from error


def _unreadable(path: Path, kind: str, error: Exception) -> DataError:
    return DataError(
        f"{path}: not a readable {kind} file ({str(error).splitlines()[0]}). It is truncated or of another format: "
        "copy or write it again."
    )


def reader_for(path: Path, schema: Schema, *, columns: tuple[str, ...] = (), quoted: bool = True) -> Reader:
    """The reader that a file's name asks for: `.parquet`, `.arrow`; `.tsv`, `.csv`, `.jsonl`, also `.gz` or `.zst`.

    Args:
        schema: its features are what a JSON file is asked for.
        columns: names of a text file's columns when it has no header.
        quoted: text values may stand between double quotes, as `TableDataset` has it too.
    Raises:
        ConfigError: the ending is none of these.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in PACKED]
    kind = suffixes[-1] if suffixes else ""
    if kind == ".parquet":
        return ParquetReader()
    if kind in (".arrow", ".ipc", ".feather"):
        return ArrowReader()
    if kind in (".jsonl", ".ndjson"):
        return JsonLinesReader.of(schema, label=False)
    if kind == ".csv":
        return TextReader(separator=",", columns=columns, quoted=quoted)
    if kind in (".tsv", ".txt"):
        return TextReader(separator="\t", columns=columns, quoted=quoted)
    raise ConfigError(
        f"{path}: unknown kind of file. Name it .csv, .tsv, .jsonl, .parquet or .arrow (text also with .gz or .zst "
        "behind)."
    )
