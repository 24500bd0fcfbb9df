"""Rows that a data set makes: Parquet files below `raw/` of its folder. What an interrupted ingest made is kept."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import polars as pl
import torch
from torch import Tensor

from recsys.core.progress import ProgressBar
from recsys.data.dataset import Dataset, RawFile
from recsys.data.fingerprint import file_fingerprint, fingerprint_of
from recsys.data.state import begin, holds, put_json

RAW_FOLDER = "raw"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The rows of one file; making them twice gives the same."""

    stem: str  # of the file's name
    num_rows: int
    make: Callable[[], pl.DataFrame]
    split: str | None = None  # of all rows, where the data set says it


def pieces_of(num_rows: int, at_once: int, frame: Callable[[Tensor], pl.DataFrame]) -> Iterator[Piece]:
    """Pieces of generated rows; `frame` makes those of these numbers, int64 (B,)."""
    for number, rows in enumerate(torch.arange(num_rows).split(at_once)):
        yield Piece(stem=f"part-{number:05d}", num_rows=len(rows), make=partial(frame, rows))


def put_frame(path: Path, frame: pl.DataFrame, *, group_rows: int | None = None) -> None:
    """Write a Parquet file that is either whole or not there.

    Args:
        group_rows: of its row groups, which then hold statistics: a filter reads only those that it needs.
    """
    aside = path.with_suffix(".tmp")
    frame.write_parquet(aside, compression="zstd", statistics=group_rows is not None, row_group_size=group_rows)
    aside.rename(path)


class Made:
    """`raw/` of a dataset folder."""

    def __init__(self, folder: Path, dataset: Dataset, *, max_rejected: float) -> None:
        """Go on with what is there if it was made of the same: config, input files, share of rows that may be left out.

        Raises:
            DataError: an input cannot be read.
        """
        inputs = [file_fingerprint(path) for path in dataset.inputs()]
        self.folder = folder / RAW_FOLDER
        key = fingerprint_of([dataset, max_rejected, *inputs])
        if not holds(self.folder, key):
            begin(self.folder, key)

    def once(self, name: str, find: Callable[[], T]) -> T:
        """What `find` gives, which JSON must hold as it is; after an interruption what it gave before."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            put_json(path, find())
        found: T = json.loads(path.read_text())
        return found

    def files(self, pieces: Iterable[Piece], *, num_rows: int) -> tuple[RawFile, ...]:
        """Make what is not there yet of `num_rows` rows."""
        found = []
        with ProgressBar("making the rows", total=num_rows) as progress:
            for piece in pieces:
                path = self.folder / f"{piece.stem}.parquet"
                found.append(RawFile(path=path, split=piece.split))
                if path.is_file():
                    progress.skip(piece.num_rows)
                    continue
                put_frame(path, piece.make())
                progress.advance(piece.num_rows)
        return tuple(found)
