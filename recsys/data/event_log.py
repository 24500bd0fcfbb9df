"""The files of an event log, what their columns mean, and their rows as events, in the order of the files."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import polars as pl

from recsys.core.errors import ConfigError
from recsys.core.progress import ProgressBar
from recsys.core.schema import MISSING_KEY, MISSING_TEXT, CategoricalFeature, KeyType, Schema
from recsys.data.faults import Faults, Origin, Rejected, check_present
from recsys.data.json_lines import JsonLinesReader
from recsys.data.locate import existing, located
from recsys.data.raw import TEXT_TYPES, typed_columns
from recsys.data.readers import ArrowReader, ParquetReader, Reader
from recsys.data.text import TextReader

logger = logging.getLogger(__name__)

CHUNK_ROWS = 262_144
NO_SEPARATOR = "\x1f"  # reads a line as one value

TIME = "__time__"
INPUT = "an input of dataset.log"
STEM = "log"
"""Of the files that list rows of logs which were left out."""
LAST_TIME = 1 << 61

Read = tuple[pl.DataFrame, Faults, int]
"""Rows, what is wrong with some of them, and how many they are."""

Check = Callable[[pl.DataFrame, Faults], None]
"""Notes faults of rows."""


class LogKind(Enum):
    """Form of a log's files."""

    TEXT = "text"  # delimited text, one event a line; plain, .gz or .zst
    JSONL = "jsonl"  # one JSON object a line; plain, .gz or .zst
    PARQUET = "parquet"  # one event a row
    ARROW = "arrow"  # likewise; IPC files, also known as Feather version 2
    USERS = "users"  # text, one user a line: `user item item …`, oldest first; an event's time is its place


@dataclass(frozen=True, kw_only=True)
class EventLog:
    """Files of events, read in this order, and which of their columns mean what."""

    files: tuple[str, ...]
    kind: LogKind = LogKind.TEXT
    separator: str = ","  # of text; of USERS between user and items too
    columns: tuple[str, ...] = ()  # of TEXT files without header
    quoted: bool = False  # values of TEXT may stand between double quotes
    user: str = "user"
    item: str = "item"
    time: str = "time"  # whole numbers, dates or ISO 8601 text (read as seconds); "": a user's events are in file order
    attributes: tuple[str, ...] = ()  # columns that say something of the item
    behaviour: str = ""  # column whose value must be one of `behaviours`; "": every row is an event
    behaviours: tuple[str, ...] = ()
    key_type: KeyType = KeyType.STRING  # of users, items and attributes

    def __post_init__(self) -> None:
        if not self.files:
            raise ConfigError("dataset.log.files=[]: name at least one file of events.")
        if bool(self.behaviour) != bool(self.behaviours):
            raise ConfigError(
                f"dataset.log.behaviour={self.behaviour!r} with behaviours={list(self.behaviours)}: name the column "
                "and the values to keep, or neither."
            )
        if self.kind is LogKind.USERS and (self.time or self.attributes or self.behaviour or self.columns):
            raise ConfigError(
                f"dataset.log.kind=USERS with time={self.time!r}, attributes={list(self.attributes)}, behaviour="
                f"{self.behaviour!r}, columns={list(self.columns)}: a line holds a user and items only. Leave these "
                "empty; attributes may come from dataset.side."
            )

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return located(self.files)


def num_rows_of(log: EventLog) -> int:
    """Rows of all files.

    Raises:
        DataError: a file is missing or unreadable.
    """
    return sum(_reader(log).count_rows(existing(path, INPUT)) for path in log.paths)


def event_frames(
    log: EventLog, rejected: Rejected, *, num_rows: int, first_file: int = 0, check: Check | None = None
) -> Iterator[pl.DataFrame]:
    """Events in the order of the files: user, item, attributes, and `TIME` where the log has times.

    Args:
        rejected: takes the rows with faults; one that may take none has the first refused.
        num_rows: of the log, as `num_rows_of` counts them: text files are read once more for that.
        first_file: number that `rejected` knows the log's first file by.
        check: notes what else is wrong with rows; of `USERS` the items of a row are a list.
    Raises:
        DataError: a file is missing, unreadable or lacks a column; a user, item or time is missing or of another type,
            of more events than may be set aside.
    """
    frames = _users_frames if log.kind is LogKind.USERS else _event_frames
    times, without_items = _Times(), 0
    with ProgressBar("reading events", total=num_rows) as progress:
        for number, path in enumerate(log.paths, start=first_file):
            for frame, faults, done in frames(log, path, rejected.limit == 0, times):
                if check:
                    check(frame, faults)
                rejected.add(number, faults.rejected())
                sound = faults.sound(frame)
                if log.kind is LogKind.USERS:
                    without_items += int((sound[log.item].list.len() == 0).sum())
                yield _kept(log, sound)
                progress.advance(done)
    if without_items:
        logger.warning("%s: left out %d lines of users without items", ", ".join(log.files), without_items)


def typed(frame: pl.DataFrame, log: EventLog, columns: tuple[CategoricalFeature, ...], faults: Faults) -> pl.DataFrame:
    """These columns with keys of the log's type, and whatever else the log needs."""
    schema = Schema(label="label", categorical=columns)
    other = [name for name in (log.time, log.behaviour) if name and name in frame.columns]
    return typed_columns(frame, schema, faults, label=False, other=other)


def filled(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Keys with missing ones replaced: a list cannot hold these, and a history must be as long in every column."""
    return frame.with_columns(
        pl.col(name).replace("", None).fill_null(MISSING_TEXT)
        if frame[name].dtype == pl.String
        else pl.col(name).fill_null(MISSING_KEY)
        for name in names
    )


def _reader(log: EventLog) -> Reader:
    if log.kind is LogKind.PARQUET:
        return ParquetReader()
    if log.kind is LogKind.ARROW:
        return ArrowReader()
    if log.kind is LogKind.JSONL:
        names = (log.user, log.item, *log.attributes, log.time, log.behaviour)
        return JsonLinesReader(columns=tuple(name for name in names if name))
    if log.kind is LogKind.USERS:
        return TextReader(separator=NO_SEPARATOR, columns=("line",), quoted=False)
    # A command line gives the two characters `\t`; in a yaml's double quotes they are a tab.
    return TextReader(separator=log.separator.replace("\\t", "\t"), columns=log.columns, quoted=log.quoted)


def _kept(log: EventLog, frame: pl.DataFrame) -> pl.DataFrame:
    """What is an event of sound rows, and its columns."""
    if log.kind is LogKind.USERS:
        return frame.filter(pl.col(log.item).list.len() > 0).explode(log.item)
    if log.behaviour:
        frame = frame.filter(pl.col(log.behaviour).cast(pl.String).is_in(log.behaviours))
    return frame.select(log.user, log.item, *log.attributes, *([TIME] if log.time else []))


def _event_frames(log: EventLog, path: Path, strict: bool, times: "_Times") -> Iterator[Read]:
    names = (log.user, log.item, *log.attributes)
    columns = tuple(CategoricalFeature(name=name, key_type=log.key_type) for name in names)
    row = 0
    for raw in _reader(log).frames(existing(path, INPUT), CHUNK_ROWS, keep_damaged=not strict):
        faults = Faults(Origin(path=str(path), first_row=row), strict=strict)
        check_present(raw.columns, [log.time, log.behaviour], faults.origin, "dataset.log")
        frame = typed(raw, log, columns, faults)
        for name in (log.user, log.item):
            faults.note(frame[name], _absent(frame[name]), "names nobody and nothing. Fill it, or remove the row.")
        if log.time:
            frame = frame.with_columns(times.of(raw[log.time], faults).alias(TIME))
        yield frame, faults, raw.height
        row += raw.height


def _users_frames(log: EventLog, path: Path, strict: bool, _: "_Times") -> Iterator[Read]:
    separator = log.separator.replace("\\t", "\t")
    columns = (
        CategoricalFeature(name=log.user, key_type=log.key_type),
        CategoricalFeature(name=log.item, key_type=log.key_type, multi_valued=True, separator=separator),
    )
    row = 0
    for raw in _reader(log).frames(existing(path, INPUT), CHUNK_ROWS, keep_damaged=not strict):
        parts = raw["line"].str.strip_chars_end().str.splitn(separator, 2).struct.unnest()
        parts.columns = [log.user, log.item]
        faults = Faults(Origin(path=str(path), first_row=row), strict=strict)
        frame = typed(parts.with_columns(raw.drop("line")), log, columns, faults)
        faults.note(frame[log.user], _absent(frame[log.user]), "names nobody. Remove the line.")
        if log.key_type is KeyType.STRING:
            blank = frame[log.item].list.eval(pl.element().str.strip_chars() == "").list.any()
            faults.note(frame[log.item], blank, "has an item of spaces alone. Remove it.")
        yield frame, faults, raw.height
        row += raw.height


def _absent(keys: pl.Series) -> pl.Series:
    """Of an integer, too, what everything behind reads as a missing one."""
    return keys.is_null() | (keys.str.strip_chars() == "" if keys.dtype == pl.String else keys == MISSING_KEY)


class _Times:
    """Times of one log: whole numbers everywhere, or dates everywhere, by the first row that has either.

    Numbers are in a unit of their own, dates and ISO 8601 text in seconds since 1970 (UTC): side by side they would put
    events out of order.
    """

    def __init__(self) -> None:
        self._kind = ""

    def of(self, column: pl.Series, faults: Faults) -> pl.Series:
        """Int64, null where there is none, which is noted."""
        for kind, reads in {"whole numbers": _numbers_of, "dates": _dates_of}.items():
            found = reads(column)
            if self._kind in ("", kind) and found.null_count() < len(found):
                self._kind = kind
            if self._kind == kind:
                break
        others = f", and the others of this log are {self._kind}" if self._kind else ""
        problem = (
            f"is no time{others}. Write whole numbers (seconds or milliseconds), dates or ISO 8601 text, the same on "
            "every row of every file."
        )
        faults.note(column, found.is_null(), problem)
        return found


def _numbers_of(column: pl.Series) -> pl.Series:
    """Whole numbers whose differences fit into 64 bits."""
    if column.dtype in TEXT_TYPES:
        numbers = column.cast(pl.String).str.strip_chars().cast(pl.Int64, strict=False)
    elif column.dtype.is_numeric():
        numbers = column.cast(pl.Int64, strict=False)
        if column.dtype.is_float():
            numbers = numbers.set(numbers.cast(pl.Float64) != column, None)
    else:
        return pl.Series(column.name, [None] * len(column), dtype=pl.Int64)
    return numbers.set((numbers > LAST_TIME) | (numbers < -LAST_TIME), None)


def _dates_of(column: pl.Series) -> pl.Series:
    """Seconds since 1970."""
    if column.dtype in TEXT_TYPES:
        texts = column.cast(pl.String).str.strip_chars()
        # Only ISO: polars would guess whether 01/02/2020 begins with the day.
        dates = texts.set(~texts.str.contains(r"^\d{4}-\d\d-\d\d").fill_null(False), None)
        return dates.str.to_datetime(strict=False, time_zone="UTC").dt.epoch("s")
    if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        return column.dt.epoch("s").cast(pl.Int64)
    return pl.Series(column.name, [None] * len(column), dtype=pl.Int64)
