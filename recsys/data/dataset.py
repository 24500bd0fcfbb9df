"""What every data set offers to ingest: raw rows in files, a schema, and the rule that splits them.

A data set is a frozen config dataclass whose method `open` returns a `RawTable`, and ingest knows nothing else; so a
new source of rows is one dataclass and one yaml.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import Protocol

import polars as pl

from recsys.core.errors import ConfigError, DataError
from recsys.core.schema import Schema
from recsys.data.faults import Faults, Origin, Rejected
from recsys.data.joined import Join
from recsys.data.locate import existing
from recsys.data.raw import ROW, typed_columns, unknown_keys
from recsys.data.readers import Reader

SPLIT_NAMES = ("train", "validation", "test")


class SplitMethod(Enum):
    """How a row gets its split."""

    GIVEN = "given"  # by the file it is in
    HASH = "hash"  # by the hash of its position: shares are approximate, a row's split depends on no other row
    SHUFFLE = "shuffle"  # by a seeded permutation of all positions: shares are exact
    TIME = "time"  # by `column`, oldest first; rows of one value stay together, so shares are approximate
    ORDER = "order"  # by position: the first rows are train


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Rule and shares. The seed is ingest's."""

    method: SplitMethod = SplitMethod.SHUFFLE
    train: float = 0.8
    validation: float = 0.1
    test: float = 0.1
    column: str = ""  # of TIME: numbers, or text that sorts by time (ISO 8601)

    def __post_init__(self) -> None:
        shares = (self.train, self.validation, self.test)
        if min(shares) < 0 or self.train <= 0 or abs(sum(shares) - 1) > 1e-9:
            raise ConfigError(
                f"dataset.split shares train={self.train}, validation={self.validation}, test={self.test}: "
                "none may be negative, train must be above 0 and they must add up to 1."
            )
        if (self.method is SplitMethod.TIME) != bool(self.column):
            raise ConfigError(
                f"dataset.split.column={self.column!r} with method {self.method.name}: "
                "method TIME needs the name of a column, the others take none."
            )


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """One input file; `split` only where files give the split."""

    path: Path
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class RawChunk:
    """Raw rows of one file, in order.

    `frame`: in the types of `recsys.data.raw.normalise`, with `__row__` (Int64, position over all files).
    `rejected`: what was left out because of faults, as `recsys.data.faults.REJECTED` has it.
    """

    frame: pl.DataFrame
    split: str | None
    shard: int  # number of the shard that all its rows belong to
    rejected: pl.DataFrame
    unknown: dict[str, int]  # as `unknown_keys` counts


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Consecutive rows of one file: what is worked on at a time, and all that an interrupted ingest loses."""

    number: int
    file: int
    first_row: int  # in the file
    position: int  # of its first row, over all files
    num_rows: int


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """Raw rows of a data set, readable any number of times in the same order and the same pieces."""

    name: str
    schema: Schema
    files: tuple[RawFile, ...]
    reader: Reader
    split: SplitConfig
    only_positives: bool = False  # every row is an interaction, so that no label is 0
    joins: tuple[Join, ...] = ()  # what `reader` joins to the rows
    rejected: Rejected | None = None  # what was left out of the input that the rows are made of

    def __post_init__(self) -> None:
        for file in self.files:
            existing(file.path, f"an input of data set {self.name!r}")

    @property
    def beside(self) -> tuple[Path, ...]:
        """The files of what is joined, without those of the rows themselves."""
        own = {file.path for file in self.files}
        return tuple(path for join in self.joins for path in join.paths if path not in own)

    def check_kept(self) -> None:
        """Refuse columns that are kept as they are if their type differs between files: it is one column of the result.

        Raises:
            DataError: one does, or a file is unreadable.
        """
        known: dict[str, tuple[pl.DataType, Path]] = {}
        kept = {*self.schema.passthrough, self.split.column} - {""}
        for file in self.files if kept and len(self.files) > 1 else ():
            first = next(self.reader.frames(file.path, 1, keep_damaged=True), pl.DataFrame())
            for name in kept & set(first.columns):
                dtype, path = known.setdefault(name, (first[name].dtype, file.path))
                if dtype != first[name].dtype:
                    raise DataError(
                        f"column {name!r} is {dtype} in {path} and {first[name].dtype} in {file.path}: it is kept as "
                        "it is, so it must have one type. Write it in one type in all files."
                    )

    def count_rows(self) -> list[int]:
        """Rows of each file.

        Raises:
            DataError: a file is unreadable or holds no row.
        """
        counts = [self.reader.count_rows(file.path) for file in self.files]
        for file, count in zip(self.files, counts, strict=True):
            if count == 0:
                raise DataError(f"{file.path}: the file holds no rows. Remove it from the dataset config, or fill it.")
        return counts

    def shards(self, shard_rows: int) -> list[Shard]:
        """All rows in shards of at most so many.

        Raises:
            DataError: a file is unreadable or holds no row.
        """
        found: list[Shard] = []
        position = 0
        for file, count in enumerate(self.count_rows()):
            for first in range(0, count, shard_rows):
                rows = min(shard_rows, count - first)
                shard = Shard(number=len(found), file=file, first_row=first, position=position + first, num_rows=rows)
                found.append(shard)
            position += count
        return found

    def chunks(self, shards: Sequence[Shard], chunk_rows: int, *, strict: bool) -> Iterator[RawChunk]:
        """Pieces of at most `chunk_rows` rows, never across a shard's end.

        Args:
            shards: consecutive ones.
            chunk_rows: rows in memory at a time.
            strict: refuse the first row that has a fault; else leave such rows out.
        """
        for file, group in groupby(shards, key=lambda shard: shard.file):
            own = list(group)
            end = own[-1].first_row + own[-1].num_rows
            row, left = own[0].first_row, iter(own)
            shard = next(left)
            for frame in self.reader.frames(self.files[file].path, chunk_rows, first_row=row, keep_damaged=not strict):
                while frame.height and row < end:
                    if row == shard.first_row + shard.num_rows:
                        shard = next(left)
                    part = frame.head(shard.first_row + shard.num_rows - row)
                    yield self._chunk(part, shard, row, strict=strict)
                    row, frame = row + part.height, frame.slice(part.height)
                if row >= end:
                    break

    def _chunk(self, frame: pl.DataFrame, shard: Shard, row: int, *, strict: bool) -> RawChunk:
        file = self.files[shard.file]
        faults = Faults(Origin(path=str(file.path), first_row=row), strict=strict)
        first = shard.position + row - shard.first_row
        rows = pl.int_range(first, first + frame.height, dtype=pl.Int64, eager=True)
        sound = faults.sound(self._typed(frame, faults).with_columns(rows.alias(ROW)))
        return RawChunk(
            frame=sound,
            split=file.split,
            shard=shard.number,
            rejected=faults.rejected(),
            unknown=unknown_keys(frame),
        )

    def _typed(self, frame: pl.DataFrame, faults: Faults) -> pl.DataFrame:
        time = self.split.column
        typed = typed_columns(frame, self.schema, faults, other=[time] if time else [])
        if time:
            column, bad = frame[time], frame[time].is_null()
            if column.dtype.is_nested() or column.dtype == pl.Binary:
                faults.refuse(column, ~bad, f"is {column.dtype}, no time to split by. Name another column.")
            problem = "is no time to split by. Fill or remove such rows, or choose another split method."
            faults.note(column, bad | column.is_nan() if column.dtype.is_float() else bad, problem)
        return typed


class Dataset(Protocol):
    """A config dataclass that a yaml in `conf/dataset` names."""

    @property
    def name(self) -> str:
        """Name in the manifest and in reports."""

    def inputs(self) -> tuple[Path, ...]:
        """Files that the rows come from, none where they are generated."""

    def open(self, folder: Path, *, max_rejected: float = 0.0) -> RawTable:
        """The raw rows. `folder` is ingest's output folder: a generator writes its rows below it first.

        Args:
            max_rejected: share of its input's rows with faults that a data set which makes rows of them may leave out;
                rows of the files themselves are ingest's to leave out.
        """
