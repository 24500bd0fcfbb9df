"""Histories of rows: what their user did before them, as lists beside the row, newest first.

The past only: of an event log the events of the row's user whose time is before the row's, to the microsecond. Of the
same time there are none, so that no row is in its own history and nothing depends on the order of the files. Events of
one user and one time stand in the order of the files, the last one first. Nothing says whether an event's outcome (a
click of `behaviour`) was known as early as the event: where it comes later, give the log the time of the outcome.

The log's events are in memory, once a process: about 26 bytes each with one column of text, 140 while they are read.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import ConfigError, DataError
from recsys.core.schema import CategoricalFeature, Schema, Timestamp
from recsys.data.event_log import filled
from recsys.data.faults import Faults, Origin
from recsys.data.histories import gap_buckets, lists, newest_first
from recsys.data.joined import (
    CHUNK_ROWS,
    SideTable,
    check_joined,
    joined_reader,
    key_column,
    keys_of,
    needed,
)
from recsys.data.json_lines import JsonLinesReader
from recsys.data.locate import each_once, existing, located
from recsys.data.raw import EMPTY, TRUTH, typed_columns
from recsys.data.readers import Reader, reader_for
from recsys.data.times import times_of

logger = logging.getLogger(__name__)

GAP = "gap"
SECOND = 1_000_000  # in microseconds
USER, TIME, CODE, KEPT = "__user__", "__time__", "__code__", "__kept__"
SECTION = "dataset.history"


@dataclass(frozen=True, kw_only=True)
class History:
    """Lists of what a row's user did before it.

    Of each of `columns` the list `<prefix><column>`, and `<prefix>gap`, the bucket of the seconds from that event to
    the row (0 for less than one, else floor(log2) + 1); all are equally long. A row without user or time has an empty
    history.
    """

    user: str  # column of the rows and of the log
    time: str  # a timestamp of the rows, and of the log in the same form
    columns: tuple[str, ...]  # of the log: the item, and whatever else is said of an event
    files: tuple[str, ...] = ()  # the log, known by its ending and named as `located` takes it; (): the rows themselves
    behaviour: str = ""  # column of the log whose value must be one of `behaviours` (1 and true are one); "": any row
    behaviours: tuple[str, ...] = ()
    max_length: int = 50  # events, the most recent ones
    prefix: str = "hist_"

    def __post_init__(self) -> None:
        for name in ("user", "time", "prefix"):
            if not getattr(self, name):
                raise ConfigError(f"{name}='': must not be empty.")
        if not self.columns or len({*self.columns, GAP}) <= len(self.columns):
            raise ConfigError(
                f"columns={list(self.columns)}: name the log's columns to list, each once and none of them {GAP!r}."
            )
        if bool(self.behaviour) != bool(self.behaviours):
            raise ConfigError(
                f"behaviour={self.behaviour!r} with behaviours={list(self.behaviours)}: name the column and the values "
                "to keep, or neither."
            )
        if self.max_length < 1:
            raise ConfigError(f"max_length={self.max_length}: must be 1 or more.")

    @property
    def asked(self) -> tuple[str, ...]:
        """Columns of the log that are read."""
        names = (self.user, self.time, *self.columns, self.behaviour)
        return tuple(dict.fromkeys(name for name in names if name))

    @property
    def gives(self) -> tuple[str, ...]:
        """The lists."""
        return tuple(self.prefix + name for name in (*self.columns, GAP))


@dataclass(frozen=True, kw_only=True)
class LoggedRows:
    """A log that is the data set's own rows.

    What ingest finds wrong in them it tells: an event whose own columns are sound stays one, even where its row is set
    aside for another column.
    """

    reader: Reader
    sides: tuple[SideTable, ...] = ()

    def reader_of(self, columns: tuple[str, ...], schema: Schema) -> Reader:
        """The rows with these columns, some of which side tables may give."""
        reader = self.reader
        if isinstance(reader, JsonLinesReader):
            reader = replace(reader, columns=columns, optional=(), lists=())
        return joined_reader(reader, needed(self.sides, columns), schema)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoggedPast:
    """A history with the files of its log: a `Join`."""

    history: History
    time: Timestamp
    files: tuple[str, ...]
    rows: LoggedRows | None = None  # None: other files, read by their endings

    @property
    def needs(self) -> tuple[str, ...]:
        """User and time."""
        return (self.history.user, self.history.time)

    @property
    def gives(self) -> tuple[str, ...]:
        """The lists."""
        return self.history.gives

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, each once."""
        return each_once(located(self.files))

    @property
    def rule(self) -> tuple[object, ...]:
        """The history, but for the names of its files."""
        return (replace(self.history, files=()),)

    def read(self, schema: Schema) -> "Past":
        """The log's events in order.

        Raises:
            DataError: a file is missing, unreadable or lacks a column, or the log has no event.
        """
        reads = _Columns.of(self, schema)
        # Here, because it reads side tables: once for all files.
        own = self.rows.reader_of(self.history.asked, schema) if self.rows else None
        parts = [part for path in self.paths for part in self._events(path, reads, own)]
        events = pl.concat(parts) if parts else pl.DataFrame()
        if events.is_empty():
            history = self.history
            of = f", whose {history.behaviour!r} is one of {list(history.behaviours)}," if history.behaviour else ""
            raise DataError(
                f"{', '.join(self.files)}: no row{of} has a {history.user!r} and a {history.time!r}, so that there is "
                f"no event. Correct {SECTION}, or the files."
            )
        past = _past(self, reads.user, events)
        first, last = (pl.Series([int(past.distinct[at])]).cast(pl.Datetime("us"))[0] for at in (0, -1))
        logger.info("%s: %d events of %d users, %s to %s", SECTION, events.height, past.users.height, first, last)
        return past

    def _events(self, path: Path, reads: "_Columns", own: Reader | None) -> Iterator[pl.DataFrame]:
        """Of one file: user, time (in microseconds) and columns of the events that have user and time."""
        row = 0
        for frame in (own or self._reader(path)).frames(path, CHUNK_ROWS, keep_damaged=own is not None):
            origin = Origin(path=str(path), first_row=row)
            check_joined(frame, origin, self.history.asked, (), SECTION)
            faults = Faults(origin, strict=own is None)
            yield _kept(faults.sound(reads.typed(frame, faults)))
            row += frame.height

    def _reader(self, path: Path) -> Reader:
        names = tuple(CategoricalFeature(name=name) for name in self.history.asked)
        return reader_for(existing(path, SECTION), Schema(label="", categorical=names))


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """What is read of a log's rows, in which types."""

    log: LoggedPast
    user: CategoricalFeature
    values: Schema  # the listed columns, with the key types of the lists

    @staticmethod
    def of(log: LoggedPast, schema: Schema) -> "_Columns":
        listed = tuple(
            replace(key_column(log.history.prefix + name, schema), name=name) for name in log.history.columns
        )
        user = key_column(log.history.user, schema)
        return _Columns(log=log, user=user, values=Schema(label="", categorical=listed))

    def typed(self, frame: pl.DataFrame, faults: Faults) -> pl.DataFrame:
        """User, time and columns, and whether behaviour is one that is asked for."""
        history, time = self.log.history, self.log.time
        values = typed_columns(frame, self.values, faults, label=False)
        times = times_of(frame[time.name], time, faults).dt.timestamp("us").alias(TIME)
        wanted = pl.lit(True)
        if history.behaviour:
            column = frame[history.behaviour]
            if column.dtype.is_nested():
                faults.refuse(column, column.is_not_null(), f"is {column.dtype}. A behaviour is one value.")
            wanted = pl.lit(_plain(column).is_in(_plain(pl.Series(history.behaviours)).implode()))
        users = keys_of(frame[self.user.name], self.user).alias(USER)
        return filled(values, values.columns).select(users, times, pl.all(), wanted.alias(KEPT))


def _kept(events: pl.DataFrame) -> pl.DataFrame:
    somebody = pl.col(USER).cast(pl.String).str.strip_chars() != ""  # false of null
    return events.filter(somebody & pl.col(TIME).is_not_null() & pl.col(KEPT)).drop(KEPT)


@dataclass(frozen=True, kw_only=True, eq=False)
class Past:
    """A log's events in order: by user, then time, then place in the files; E of them.

    `places` int64 (E,), user and time of each as one number; `times` int64 (E,), microseconds; `distinct`, the
    different times; `values`, the columns, by event; `users`, keys and codes.
    """

    log: LoggedPast
    key: CategoricalFeature
    users: pl.DataFrame
    distinct: Tensor
    places: Tensor
    times: Tensor
    values: pl.DataFrame

    def joined(self, frame: pl.DataFrame, origin: Origin, *, keep_damaged: bool) -> pl.DataFrame:
        """The rows of `frame`, in their order, with the lists.

        Raises:
            DataError: `frame` lacks user or time, or has one of the lists itself; a time that is none, unless
                `keep_damaged`, where such a row has an empty history.
        """
        history, time = self.log.history, self.log.time
        check_joined(frame, origin, self.log.needs, self.log.gives, SECTION)
        found = times_of(frame[time.name], time, Faults(origin, strict=not keep_damaged)).dt.timestamp("us")
        keys = pl.DataFrame({USER: keys_of(frame[self.key.name], self.key)})
        codes = keys.join(self.users, on=USER, how="left", maintain_order="left")[CODE]
        known = (codes.is_not_null() & found.is_not_null()).to_torch()
        times = found.fill_null(0).to_torch()
        begins = codes.fill_null(0).to_torch() * (self.distinct.numel() + 1)
        ends = torch.searchsorted(self.places, begins + torch.searchsorted(self.distinct, times))
        lengths = (ends - torch.searchsorted(self.places, begins)).clamp(max=history.max_length) * known
        row, past, offsets = newest_first(ends, lengths)
        seen = self.values[pl.Series(past.numpy())]
        columns = [lists(history.prefix + each.name, _written(each), offsets) for each in seen.get_columns()]
        gaps = gap_buckets((times[row] - self.times[past]) // SECOND)
        columns += [lists(history.prefix + GAP, pl.Series(gaps.numpy()), offsets)]
        return frame.with_columns(*columns, pl.Series(EMPTY + columns[0].name, (lengths == 0).numpy()))


def _past(log: LoggedPast, key: CategoricalFeature, events: pl.DataFrame) -> Past:
    """The events of a log, which are in the order of its files."""
    keys = events[USER].unique().sort()
    users = pl.DataFrame({USER: keys, CODE: pl.int_range(len(keys), eager=True)})
    codes = events.select(USER).join(users, on=USER, how="left", maintain_order="left")[CODE].to_torch()
    times = events[TIME].to_torch()
    distinct, ranks = torch.unique(times, return_inverse=True)
    # One more than there are times, for a row that is later than all.
    places, order = torch.sort(codes * (distinct.numel() + 1) + ranks, stable=True)
    values = pl.DataFrame([_coded(column) for column in events.drop(USER, TIME)])
    ordered = values[pl.Series(order.numpy())]
    return Past(log=log, key=key, users=users, distinct=distinct, places=places, times=times[order], values=ordered)


def _coded(keys: pl.Series) -> pl.Series:
    """Texts as codes, which take less memory."""
    return keys.cast(pl.Enum(keys.unique())) if keys.dtype == pl.String else keys


def _plain(values: pl.Series) -> pl.Series:
    """As text; 1, 1.0 and true are one value, as labels are read."""
    return values.cast(pl.String).str.replace(r"\.0+$", "").replace(TRUTH)


def _written(values: pl.Series) -> pl.Series:
    return values.cast(pl.String) if values.dtype == pl.Enum else values
