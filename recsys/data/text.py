"""Delimited text in bounded pieces.

Columns arrive as text, whatever they hold: `recsys.data.raw.normalise` converts them, because only there can an error
name column, row and value.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.core.errors import ConfigError, DataError
from recsys.data.blocks import slices, text_blocks
from recsys.data.faults import with_damaged
from recsys.data.lines import MISPLACED, damaged_line, first_row, is_damaged, num_rows, without_damaged

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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

    @property
    def _around(self) -> bytes:
        """What stands around quoted values, if there are any."""
        return self.separator.encode() if self.quoted else b""

    def count_rows(self, path: Path) -> int:
        """Rows of the file; damaged lines count."""
        rows = sum(num_rows(block, separator=self._around) for block in text_blocks(path, separator=self._around))
        return max(rows - (not self.columns), 0)

    def frames(
        self, path: Path, chunk_rows: int, *, first_row: int = 0, keep_damaged: bool = False
    ) -> Iterator[pl.DataFrame]:
        """The rows in order, at most `chunk_rows` at a time; every column is text, an empty value is null.

        Raises:
            DataError: a line has too many or too few values, a misplaced quote or is not UTF-8, and is not kept.
        """
        columns, line, row = self.columns, 1, 0
        for block in text_blocks(path, separator=self._around):
            if line == 1:
                block = block.removeprefix(BYTE_ORDER_MARK)
                if not columns:
                    columns, header = self._header(block, path)
                    block, line = block[len(header) :], line + header.count(b"\n")
            skipped = num_rows(block, separator=self._around) if row < first_row else 0
            if row + skipped <= first_row and skipped:
                row += skipped
            else:
                frame = self._parse(block, columns, path, line, keep_damaged=keep_damaged)
                yield from slices(frame, chunk_rows, first_row=first_row - row)
                row += frame.height
            line += block.count(b"\n")

    def _header(self, block: bytes, path: Path) -> tuple[tuple[str, ...], bytes]:
        """(Names of the columns, the row that holds them)."""
        header = first_row(block, separator=self._around)
        if header is None:
            raise DataError(f"{path}, line 1, the header: {MISPLACED}")
        try:
            # As a row: polars would give repeated names other names.
            names = pl.read_csv(
                header,
                separator=self.separator,
                infer_schema=False,
                has_header=False,
                quote_char='"' if self.quoted else None,
            ).row(0)
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"{path}, line 1: cannot be read as a header ({str(error).splitlines()[0]}). The file must be UTF-8 "
                "text; convert it."
            ) from error
        columns = tuple(name or "" for name in names)
        repeated = _repeated(columns)
        if repeated:
            raise DataError(
                f"{path}, line 1: the header names column(s) {repeated} more than once. Rename them, or give the names "
                "of all columns in the dataset config (columns) for a file without its header line."
            )
        return columns, header

    def _parse(
        self, block: bytes, columns: tuple[str, ...], path: Path, line: int, *, keep_damaged: bool
    ) -> pl.DataFrame:
        if not block:
            return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        separator = self.separator.encode()
        because = "damaged"
        if not is_damaged(block, separator=separator, num_values=len(columns), quoted=self.quoted):
            try:
                return self._sound(block, columns)
            except pl.exceptions.PolarsError as error:
                because = str(error).splitlines()[0]
        if keep_damaged:
            rest, damaged = without_damaged(block, separator=separator, num_values=len(columns), quoted=self.quoted)
            try:
                return with_damaged(self._sound(rest, columns), damaged)
            except pl.exceptions.PolarsError as error:
                because = str(error).splitlines()[0]
        raise self._refusal(block, columns, path, line, because)

    def _sound(self, block: bytes, columns: tuple[str, ...]) -> pl.DataFrame:
        return pl.read_csv(
            block,
            separator=self.separator,
            has_header=False,
            schema=dict.fromkeys(columns, pl.String),
            quote_char='"' if self.quoted else None,
        )

    def _refusal(self, block: bytes, columns: tuple[str, ...], path: Path, line: int, because: str) -> DataError:
        separator = self.separator.encode()
        damaged = damaged_line(block, separator=separator, num_values=len(columns), quoted=self.quoted)
        if damaged is not None:
            return DataError(f"{path}, line {line + damaged[0]}: {damaged[1]}")
        last = line + block.count(b"\n") - 1
        return DataError(
            f"{path}, between lines {line} and {last}: cannot be read ({because}). "
            "The file must be UTF-8 text with the same number of values on each line."
        )


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)
