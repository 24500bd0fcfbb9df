"""Rows that a data set makes: Parquet files below `raw/` of its folder. What an interrupted ingest made is kept."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys.core.progress import ProgressBar
from recsys.data.dataset import Dataset, RawFile
from recsys.data.fingerprint import file_fingerprint, fingerprint_of
from recsys.data.state import begin, holds

RAW_FOLDER = "raw"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The rows of one file; making them twice gives the same."""

    stem: str  # of the file's name
    num_rows: int
    make: Callable[[], pl.DataFrame]


def pieces_of(num_rows: int, at_once: int, frame: Callable[[Tensor], pl.DataFrame]) -> Iterator[Piece]:
    """Pieces of generated rows; `frame` makes those of these numbers, int64 (B,)."""
    for number, rows in enumerate(torch.arange(num_rows).split(at_once)):
        yield Piece(stem=f"part-{number:05d}", num_rows=len(rows), make=partial(frame, rows))


class Made:
    """`raw/` of a dataset folder."""

    def __init__(self, folder: Path, dataset: Dataset, *, max_rejected: float) -> None:
        """Go on with what is there if it was made of the same: config, input files, share of rows that may be left out.

        Raises:
            DataError: an input cannot be read.
        """
        inputs = [file_fingerprint(path) for path in dataset.inputs()]
        self._folder = folder / RAW_FOLDER
        key = fingerprint_of([dataset, max_rejected, *inputs])
        if not holds(self._folder, key):
            begin(self._folder, key)

    def files(self, pieces: Iterable[Piece], *, num_rows: int, split: str | None = None) -> tuple[RawFile, ...]:
        """Make what is not there yet of `num_rows` rows; `split` of all of them where the data set says it."""
        found = []
        with ProgressBar(f"making {split or 'the'} rows", total=num_rows) as progress:
            for piece in pieces:
                path = self._folder / f"{piece.stem}.parquet"
                found.append(RawFile(path=path, split=split))
                if path.is_file():
                    progress.skip(piece.num_rows)
                    continue
                aside = path.with_suffix(".tmp")
                piece.make().write_parquet(aside, compression="zstd", statistics=False)
                aside.rename(path)
                progress.advance(piece.num_rows)
        return tuple(found)
