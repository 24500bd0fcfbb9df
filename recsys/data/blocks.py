"""Text files in blocks of whole lines, and frames in slices: what bounds the memory of reading."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.data.compression import read_bytes
from recsys.data.lines import end_of_rows

BLOCK_BYTES = 16 << 20
MAX_ROW_BYTES = 4 * BLOCK_BYTES


def text_blocks(path: Path, *, separator: bytes = b"") -> Iterator[bytes]:
    """Content of a text file in blocks of whole lines, about `BLOCK_BYTES` each; no block is empty.

    Args:
        separator: of values that may stand between double quotes, where a newline ends no row; b"": quotes are text.
    Raises:
        DataError: the file cannot be read, or a row has more than `MAX_ROW_BYTES`.
    """
    pieces: list[bytes] = []
    line, enough = 1, BLOCK_BYTES
    for piece in read_bytes(path):
        pieces.append(piece)
        if sum(map(len, pieces)) >= enough:
            block = b"".join(pieces)
            end = end_of_rows(block, separator=separator)
            if not end and len(block) > MAX_ROW_BYTES:
                # With its first line alone as a row: its quote never closes, which its reader tells.
                end = block.find(b"\n") + 1
                if not end:
                    raise _too_long(path, line, len(block))
            pieces = [block[end:]]
            # Looked at again when there is as much more: each time anew, a stray quote would take forever to be told.
            enough = len(pieces[0]) + BLOCK_BYTES
            if end:
                line += block.count(b"\n", 0, end)
                yield block[:end]
    last = b"".join(pieces).rstrip(b"\r\n")
    if last:
        yield last + b"\n"


def _too_long(path: Path, line: int, num_bytes: int) -> DataError:
    return DataError(
        f"{path}, line {line}: has more than {num_bytes >> 20} MiB. Probably the lines do not end with a newline. "
        "Correct the file."
    )


def slices(frame: pl.DataFrame, chunk_rows: int, *, first_row: int = 0) -> Iterator[pl.DataFrame]:
    """The rows of a frame from `first_row` on, at most `chunk_rows` at a time."""
    for start in range(max(first_row, 0), frame.height, chunk_rows):
        yield frame.slice(start, chunk_rows)
