"""`ParquetLoader`: encoded Parquet files to batches, without Python per row.

The row order of an epoch: the files in seeded random order are cut into windows of at most `shuffle_rows` rows (at
least one file); each window's rows are permuted; the windows follow one another, and batches are cut across their
borders. So the order is a function of (seed, epoch) alone, one window is in memory at a time, and any batch can be
reached without reading the windows before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recsys.core.batch import Batch
from recsys.core.errors import ConfigError, DataError
from recsys.core.manifest import Manifest
from recsys.data.columns import Columns, read_columns
from recsys.data.prefetch import prefetched
from recsys.ops.hashing import salt_for


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """How to cut a split into batches."""

    batch_size: int = 4096  # rows of a global batch, over all ranks
    shuffle: bool = True
    seed: int = 0
    shuffle_rows: int = 1 << 20  # rows in memory at a time, while the files are not larger
    drop_last: bool = True  # else a last short batch is kept, or joins the one before where a rank would get too little
    prefetch_batches: int = 4  # made ahead by a thread; 0 makes them when asked
    pin_memory: bool = False  # for transfer to CUDA
    num_labels: int = 1  # of the schema's labels, the main one first: what a multi-task model learns

    def __post_init__(self) -> None:
        for name in ("batch_size", "shuffle_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be 1 or more.")
        if self.prefetch_batches < 0:
            raise ConfigError(f"prefetch_batches={self.prefetch_batches}: must be 0 or more.")


@dataclass(frozen=True)
class _Window:
    files: tuple[int, ...]  # ascending
    num_rows: int
    seed: int


class ParquetLoader:
    """This rank's share of the batches of one split (`recsys.core.batch.BatchSource`)."""

    def __init__(self, folder: Path, split: str, options: LoaderOptions, *, rank: int = 0, world_size: int = 1) -> None:
        """Open a dataset folder.

        Raises:
            DataError: the folder holds no such split.
            ConfigError: the batch size does not suit the number of rows or ranks.
        """
        self._folder, self._options, self._rank, self._world_size = folder, options, rank, world_size
        self._manifest = Manifest.read(folder)
        if split not in self._manifest.splits or not self._manifest.splits[split].num_rows:
            raise DataError(f"{folder}: no rows in split {split!r}. Run ingest with a share for it.")
        self._split = self._manifest.splits[split]
        self._kept: tuple[tuple[int, ...], Columns] | None = None
        if options.batch_size % world_size:
            raise ConfigError(
                f"batch_size={options.batch_size} with {world_size} processes: each must get the same number of rows. "
                "Make it a multiple of the number of processes."
            )
        if self.num_rows < world_size:
            raise ConfigError(
                f"{world_size} processes: the {split} split of {folder} has only {self.num_rows} rows, and each "
                "process needs one. Run fewer processes."
            )
        if not self.num_batches:
            raise ConfigError(
                f"batch_size={options.batch_size}: the {split} split of {folder} has only {self.num_rows} rows and "
                "drop_last is on, so there is no batch. Lower batch_size."
            )

    @property
    def num_batches(self) -> int:
        """Batches of one epoch; equal on every rank."""
        whole, tail = divmod(self.num_rows, self._options.batch_size)
        if self._options.drop_last or not tail:
            return whole
        # A rank cannot run a model on no rows, nor train batch norm on one: a tail that short joins the batch before.
        shortest = self._world_size * (2 if self._options.shuffle else 1)
        return max(whole, 1) if tail < shortest else whole + 1

    @property
    def num_rows(self) -> int:
        """Rows of the split, over all ranks."""
        return self._split.num_rows

    def rows_of(self, batch: int) -> int:
        """Rows of global batch number `batch` (in [0, num_batches)), over all ranks."""
        start, stop = self._range(batch)
        return stop - start

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches `start_batch`, … of that epoch; the same arguments always give the same batches.

        Raises:
            DataError: a file is unreadable or does not fit the manifest.
        """
        return prefetched(lambda: self._batches(epoch, start_batch), depth=self._options.prefetch_batches)

    def _batches(self, epoch: int, start_batch: int) -> Iterator[Batch]:
        names = [feature.name for feature in self._manifest.schema.categorical]
        for number, (shares, weight) in enumerate(self._shares(epoch, start_batch), start=start_batch):
            largest_share = -(-self.rows_of(number) // self._world_size)
            mean_weight = weight / self.rows_of(number) or 1.0
            batch = Columns.concat(shares).to_batch(names, mean_weight).padded(largest_share)
            yield batch.pin_memory() if self._options.pin_memory else batch

    def _shares(self, epoch: int, start_batch: int) -> Iterator[tuple[list[Columns], float]]:
        """For each batch its rows of this rank, in pieces: one, or several where the batch spans windows.

        Beside them the weight of all its rows, over all ranks.
        """
        batch, position = start_batch, 0
        pieces: list[Columns] = []
        weight = 0.0
        for window in self._windows(epoch):
            first, position = position, position + window.num_rows
            if batch >= self.num_batches or position <= self._range(batch)[0]:
                continue
            columns, order = self._read(window.files), self._order(window)
            while batch < self.num_batches and self._range(batch)[0] < position:
                low, high = self._share(batch)
                pieces.append(columns.select(order[max(low - first, 0) : max(min(high, position) - first, 0)]))
                start, stop = self._range(batch)
                weight += _weight(columns, order[max(start - first, 0) : min(stop, position) - first])
                if stop > position:
                    break  # the rest of this batch lies in the next window
                yield pieces, weight
                batch, pieces, weight = batch + 1, [], 0.0

    def _range(self, batch: int) -> tuple[int, int]:
        """First row of a global batch in the order of the epoch, and the row after its last."""
        size = self._options.batch_size
        if batch < self.num_batches - 1 or self._options.drop_last:
            return batch * size, (batch + 1) * size
        return batch * size, self.num_rows

    def _share(self, batch: int) -> tuple[int, int]:
        """This rank's rows of a global batch."""
        start, stop = self._range(batch)
        rows = stop - start
        return start + self._rank * rows // self._world_size, start + (self._rank + 1) * rows // self._world_size

    def _windows(self, epoch: int) -> list[_Window]:
        sizes = self._split.file_rows
        files = torch.arange(len(sizes))
        if self._options.shuffle:
            generator = torch.Generator().manual_seed(salt_for("files", epoch, self._options.seed))
            files = torch.randperm(len(sizes), generator=generator)
        windows: list[_Window] = []
        inside: list[int] = []
        for file in files.tolist():
            if inside and sum(sizes[i] for i in inside) + sizes[file] > self._options.shuffle_rows:
                windows.append(self._window(inside, epoch, len(windows)))
                inside = []
            inside.append(file)
        return [*windows, self._window(inside, epoch, len(windows))]

    def _window(self, files: list[int], epoch: int, number: int) -> _Window:
        seed = salt_for(f"window {number}", epoch, self._options.seed)
        return _Window(tuple(sorted(files)), sum(self._split.file_rows[i] for i in files), seed)

    def _order(self, window: _Window) -> Tensor:
        if not self._options.shuffle:
            return torch.arange(window.num_rows)
        return torch.randperm(window.num_rows, generator=torch.Generator().manual_seed(window.seed))

    def _read(self, files: tuple[int, ...]) -> Columns:
        if self._kept is not None and self._kept[0] == files:
            return self._kept[1]
        self._kept = None  # before the next one is read: two windows would be twice the memory
        parts = [
            read_columns(
                self._folder / self._split.files[i],
                self._manifest,
                num_rows=self._split.file_rows[i],
                num_labels=self._options.num_labels,
            )
            for i in files
        ]
        self._kept = (files, Columns.concat(parts))
        return self._kept[1]


def _weight(columns: Columns, rows: Tensor) -> float:
    """Weight of these rows; their number where all count alike."""
    if columns.weights is None:
        return float(rows.numel())
    # NumPy, because torch adds up in as many parts as it has threads, and ranks must find the same.
    return float(columns.weights[rows].numpy().sum(dtype=np.float64))
