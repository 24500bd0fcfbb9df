"""Text files in blocks of whole lines, and frames in slices: what bounds the memory of reading."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from recsys.data.compression import read_bytes

BLOCK_BYTES = 16 << 20


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


def slices(frame: pl.DataFrame, chunk_rows: int, *, first_row: int = 0) -> Iterator[pl.DataFrame]:
    """The rows of a frame from `first_row` on, at most `chunk_rows` at a time."""
    for start in range(max(first_row, 0), frame.height, chunk_rows):
        yield frame.slice(start, chunk_rows)
