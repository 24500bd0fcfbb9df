"""Readers of raw files in bounded pieces: delimited text, libfm lines and Parquet.

Text columns arrive as text, whatever they hold: `recsys.data.raw.normalise` converts them, because only there can an
error name column, row and value.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import polars as pl

from recsys.core.errors import ConfigError, DataError
from recsys.data.compression import read_bytes
from recsys.data.lines import damaged_line, is_ragged

BLOCK_BYTES = 16 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Reader(Protocol):
    """How the files of one table are read."""

    def count_rows(self, path: Path) -> int:
        """Rows of the file."""

    def frames(self, path: Path, chunk_rows: int) -> Iterator[pl.DataFrame]:
        """The rows in order, at most `chunk_rows` at a time."""


def text_blocks(path: Path, *, quoted: bool) -> Iterator[bytes]:
    """Content of a text file in blocks of whole lines, about `BLOCK_BYTES` each; no block is empty.

    Args:
        quoted: a newline between double quotes does not end a line.
    """
    pieces: list[bytes] = []
    for piece in read_bytes(path):
        pieces.append(piece)
        if sum(map(len, pieces)) >= BLOCK_BYTES:
            block = b"".join(pieces)
            end = _end_of_lines(block, quoted=quoted)
            pieces = [block[end:]]
            if end:
                yield block[:end]
    last = b"".join(pieces).rstrip(b"\r\n")
    if last:
        yield last + b"\n"


def _end_of_lines(block: bytes, *, quoted: bool) -> int:
    end = block.rfind(b"\n") + 1
    while quoted and end and block.count(b'"', 0, end) % 2:
        end = block.rfind(b"\n", 0, end - 1) + 1
    return end


def _slices(frame: pl.DataFrame, chunk_rows: int) -> Iterator[pl.DataFrame]:
    for start in range(0, frame.height, chunk_rows):
        yield frame.slice(start, chunk_rows)


@dataclass(frozen=True, kw_only=True)
class TextReader:
    """Delimited text (CSV, TSV). Without `columns` the first line is a header."""

    separator: str = ","
    columns: tuple[str, ...] = ()
    quoted: bool = True  # values may stand between double quotes

    def __post_init__(self) -> None:
        if len(self.separator.encode()) != 1:
            raise ConfigError(f"separator={self.separator!r}: must be one ASCII character, '\\t' for tabs.")
        repeated = _repeated(self.columns)
        if repeated:
            raise ConfigError(f"columns name {repeated} more than once. Give each column of the file its own name.")

    def count_rows(self, path: Path) -> int:
        """Rows of the file."""
        if self.quoted:
            return sum(frame.height for frame in self.frames(path, BLOCK_BYTES))
        lines = sum(block.count(b"\n") for block in text_blocks(path, quoted=False))
        return max(lines - (not self.columns), 0)

    def frames(self, path: Path, chunk_rows: int) -> Iterator[pl.DataFrame]:
        """The rows in order, at most `chunk_rows` at a time; every column is text, an empty value is null.

        Raises:
            DataError: a line has too many or too few values, or is not UTF-8.
        """
        columns, line = self.columns, 1
        for block in text_blocks(path, quoted=self.quoted):
            if line == 1:
                block = block.removeprefix(BYTE_ORDER_MARK)
                if not columns:
                    columns, block = self._split_header(block, path)
                    line += 1
            frame = self._parse(block, columns, path, line)
            line += block.count(b"\n")
            yield from _slices(frame, chunk_rows)

    def _split_header(self, block: bytes, path: Path) -> tuple[tuple[str, ...], bytes]:
        header, _, rest = block.partition(b"\n")
        try:
            # As a row: polars would give repeated names other names.
            names = pl.read_csv(header + b"\n", separator=self.separator, infer_schema=False, has_header=False).row(0)
        except pl.exceptions.PolarsError as error:
            raise DataError(f"{path}, line 1: cannot be read as a header ({error}). Check the encoding.") from error
        columns = tuple(name or "" for name in names)
        repeated = _repeated(columns)
        if repeated:
            raise DataError(
                f"{path}, line 1: the header names column(s) {repeated} more than once. Rename them, or give the names "
                "of all columns in the dataset config (columns) for a file without its header line."
            )
        return columns, rest

    def _parse(self, block: bytes, columns: tuple[str, ...], path: Path, line: int) -> pl.DataFrame:
        if not block:
            return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        if is_ragged(block, separator=self.separator.encode(), num_values=len(columns), quoted=self.quoted):
            self._refuse(block, columns, path, line, "damaged")
        try:
            return pl.read_csv(
                block,
                separator=self.separator,
                has_header=False,
                schema=dict.fromkeys(columns, pl.String),
                quote_char='"' if self.quoted else None,
            )
        except pl.exceptions.PolarsError as error:
            self._refuse(block, columns, path, line, str(error).splitlines()[0])

    def _refuse(self, block: bytes, columns: tuple[str, ...], path: Path, line: int, because: str) -> NoReturn:
        separator = self.separator.encode()
        damaged = damaged_line(block, separator=separator, num_values=len(columns), quoted=self.quoted)
        if damaged is not None:
            raise DataError(f"{path}, line {line + damaged[0]}: {damaged[1]}")
        last = line + block.count(b"\n") - 1
        raise DataError(
            f"{path}, between lines {line} and {last}: cannot be read ({because}). "
            "The file must be UTF-8 text with the same number of values on each line."
        )


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


@dataclass(frozen=True, kw_only=True)
class LibfmReader:
    """Lines `label id:1 … id:1`, one id per field, in field order; a label of -1 is read as 0.

    Columns: `label` and one Int64 column per field.
    """

    fields: tuple[str, ...]

    def count_rows(self, path: Path) -> int:
        """Rows of the file."""
        return sum(block.count(b"\n") for block in text_blocks(path, quoted=False))

    def frames(self, path: Path, chunk_rows: int) -> Iterator[pl.DataFrame]:
        """The rows in order, at most `chunk_rows` at a time.

        Raises:
            DataError: a line is not of that form.
        """
        line = 1
        for block in text_blocks(path, quoted=False):
            lines = pl.Series("line", block.decode("utf-8", "replace").splitlines()).str.strip_chars_end()
            self._check(lines, path, line)
            line += len(lines)
            parts = lines.str.split_exact(" ", len(self.fields)).struct.unnest()
            ids = [
                pl.col(f"field_{i}").str.strip_suffix(":1").cast(pl.Int64).alias(n)
                for i, n in enumerate(self.fields, 1)
            ]
            label = pl.col("field_0").replace("-1", "0").alias("label")
            yield from _slices(parts.select(label, *ids), chunk_rows)

    def _check(self, lines: pl.Series, path: Path, first_line: int) -> None:
        # At most 18 digits: a longer id might not fit 64 bits.
        legal = lines.str.contains(rf"^(-1|0|1)( -?\d{{1,18}}:1){{{len(self.fields)}}}$")
        if not legal.all():
            at = int((~legal).arg_true()[0])
            raise DataError(
                f"{path}, line {first_line + at}: {lines[at]!r} is not a libfm row of this data set. Expected a label "
                f"(1, 0 or -1) and then {len(self.fields)} times ' id:1', one for each of {list(self.fields)}."
            )


@dataclass(frozen=True, kw_only=True)
class ParquetReader:
    """Parquet files, in their own types."""

    def count_rows(self, path: Path) -> int:
        """Rows of the file, from its footer."""
        try:
            return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable_parquet(path, error) from error

    def frames(self, path: Path, chunk_rows: int) -> Iterator[pl.DataFrame]:
        """The rows in order, at most `chunk_rows` at a time.

        Raises:
            DataError: the file is truncated or is not Parquet.
        """
        try:
            yield from pl.scan_parquet(path, glob=False).collect_batches(chunk_size=chunk_rows, maintain_order=True)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable_parquet(path, error) from error


def unreadable_parquet(path: Path, error: Exception) -> DataError:
    """The error for a Parquet file that polars refuses."""
    return DataError(
        f"{path}: not a readable Parquet file ({str(error).splitlines()[0]}). It is truncated or of another format: "
        "copy or write it again."
    )


def reader_for(path: Path, *, columns: tuple[str, ...] = (), quoted: bool = True) -> TextReader | ParquetReader:
    """The reader that a file's name asks for: `.parquet`; `.tsv` or `.csv`, plain or with `.gz` or `.zst` behind.

    Args:
        columns: names of a text file's columns when it has no header.
        quoted: text values may stand between double quotes, as `TableDataset` has it too.
    Raises:
        ConfigError: the ending is none of these.
    """
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".zst")]
    kind = suffixes[-1].lower() if suffixes else ""
    if kind == ".parquet":
        return ParquetReader()
    if kind == ".csv":
        return TextReader(separator=",", columns=columns, quoted=quoted)
    if kind in (".tsv", ".txt"):
        return TextReader(separator="\t", columns=columns, quoted=quoted)
    raise ConfigError(
        f"{path}: unknown kind of file. Name it .csv, .tsv or .parquet (text also with .gz or .zst behind)."
    )
