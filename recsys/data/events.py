"""Event logs on disk: who met which item and when, in buckets of users, each of which fits into memory.

Order of events: by user, then by time, then by position in the files. So of two events of one user at one time the one
that the files name first counts as the earlier one; nothing else is known about them, and this needs no guess.
An event that repeats user, item and time of another one is the same event: it is kept once, and the number is logged.

The log is read once, into parts of about `EVENTS_AT_ONCE` events, each sorted by a hash of the user. A bucket is a
range of these hashes that holds as many events, all of its users: it is gathered from all parts, ordered, and written.
Memory holds a part or a bucket, and of the log as a whole its items with their attributes; so one user's events must
fit. An interrupted reading begins anew, an interrupted ordering goes on behind the last bucket.
"""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from torch import Tensor

from recsys.core.errors import DataError
from recsys.core.progress import ProgressBar
from recsys.data.event_log import STEM, TIME, EventLog, event_frames, filled
from recsys.data.faults import REJECTED_FOLDER, Rejected
from recsys.data.made import Made, put_frame
from recsys.data.ranks import Values
from recsys.data.raw import string_keys
from recsys.ops.hashing import mix64

logger = logging.getLogger(__name__)

EVENTS_AT_ONCE = 1 << 20
SLOT_BITS = 12
GROUP_ROWS = 1 << 14  # of a part: what is read at least of it for a bucket
ITEMS_AT_ONCE = 1 << 20
FOLDER, REJECTED_NAME = "events", f"{REJECTED_FOLDER}/{STEM}.parquet"
POSITION, SLOT, CODE, SEVERAL = "__position__", "__slot__", "__code__", "__several__"


@dataclass(frozen=True)
class Events:
    """E events of some users, all that these have, in order.

    `user`, `item` int64 (E,), codes; `time` int64 (E,), in the log's unit, ascending inside a user.
    `users`, a column of keys by code, ascending, and `user_keys` int64, what these are hashed to; `items`, a frame of
    all items of the log with their attributes, by code, without nulls.
    """

    user: Tensor
    item: Tensor
    time: Tensor
    users: pl.Series
    user_keys: Tensor
    items: pl.DataFrame


class EventStore:
    """The events of a log in buckets, below `raw/` of a dataset folder while rows are made of them."""

    def __init__(self, made: Made, log: EventLog) -> None:
        self._made, self._log, self._folder = made, log, made.folder / FOLDER
        self._ends: list[int] = []  # of the buckets' slots
        self._sizes: list[int] = []  # of the buckets, in ordered events
        self.num_users = self.num_repeated = 0

    @property
    def num_events(self) -> int:
        """Events of all buckets."""
        return sum(self._sizes)

    @property
    def num_buckets(self) -> int:
        """Buckets, each with an event at least."""
        return len(self._sizes)

    def fill(self, rejected: Rejected, *, num_rows: int) -> None:
        """Read the log of so many rows, those with faults set aside by file, and order its events.

        Raises:
            DataError: as `event_frames`, or the log has no event.
        """
        self._folder.mkdir(exist_ok=True)
        slots = self._made.once(f"{FOLDER}/slots", partial(self._write_parts, rejected, num_rows))
        # Kept, because buckets that are there are of these ends, whatever `EVENTS_AT_ONCE` is by now.
        self._ends = self._made.once(f"{FOLDER}/ends", partial(_ends, slots))
        with ProgressBar("ordering events", total=sum(slots), unit="events") as progress:
            for bucket, end in enumerate(self._ends):
                num_read = sum(slots[self._ends[bucket - 1] if bucket else 0 : end])
                name = f"{FOLDER}/bucket-{bucket:05d}"
                done = (self._made.folder / f"{name}.json").is_file()
                size, num_users = self._made.once(name, partial(self._order, bucket))
                self._sizes.append(size)
                self.num_users += num_users
                progress.skip(num_read) if done else progress.advance(num_read)
        for path in self._parts():
            path.unlink()  # ordered, they are in the buckets
        self.num_repeated = sum(slots) - self.num_events

    def items(self) -> pl.DataFrame:
        """Items by key, with the attributes of their earliest event; of several, or without times, the files' first."""
        known, waiting, height = list[pl.DataFrame](), list[pl.DataFrame](), 0
        for bucket in range(self.num_buckets):
            waiting.append(pl.read_parquet(self._path("items", bucket), glob=False))
            height += waiting[-1].height
            if height > max(ITEMS_AT_ONCE, sum(each.height for each in known)):
                known, waiting, height = [self._earliest(pl.concat([*known, *waiting]))], [], 0
        items = self._earliest(pl.concat([*known, *waiting]))
        for name in self._log.attributes:
            if several := int(items[SEVERAL + name].sum()):
                told = "%d items have several values of %r: each keeps that of its earliest event"
                logger.warning(told, several, name)
        return items.sort(self._log.item).select(self._log.item, *self._log.attributes)

    def read(self, bucket: int, items: pl.DataFrame) -> Events:
        """The events of a bucket; `items` as `items()` gives them, perhaps with further attributes."""
        log = self._log
        frame = pl.read_parquet(self._path("bucket", bucket), glob=False)
        users = frame[log.user].unique().sort()
        user, item = _codes(frame[log.user], users), _codes(frame[log.item], items[log.item])
        return Events(user, item, frame[TIME].to_torch(), users, keys_of(users), items)

    def times(self) -> Iterator[Values]:
        """The times of all events, bucket by bucket."""
        for bucket in range(self.num_buckets):
            yield pl.read_parquet(self._path("bucket", bucket), columns=[TIME], glob=False)[TIME].to_numpy()

    def drop(self) -> None:
        """Remove what is on disk."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, kind: str, number: int) -> Path:
        return self._folder / f"{kind}-{number:05d}.parquet"

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.parquet"))

    def _write_parts(self, rejected: Rejected, num_rows: int) -> list[int]:
        """Write the log's events in parts sorted by slot; how many events each slot has."""
        for path in self._parts():
            path.unlink()
        counts = np.zeros(1 << SLOT_BITS, dtype=np.int64)
        waiting: list[pl.DataFrame] = []
        num_parts, position, height = 0, 0, 0
        for frame in event_frames(self._log, rejected, num_rows=num_rows):
            slots = (mix64(keys_of(frame[self._log.user])) >> (64 - SLOT_BITS)) & ((1 << SLOT_BITS) - 1)
            counts += np.bincount(slots.numpy(), minlength=counts.size)
            places = pl.int_range(position, position + frame.height, dtype=pl.Int64).alias(POSITION)
            waiting.append(frame.with_columns(pl.Series(SLOT, slots.numpy()).cast(pl.UInt16), places))
            position, height = position + frame.height, height + frame.height
            if height >= EVENTS_AT_ONCE:
                self._write_part(num_parts, waiting)
                num_parts, waiting, height = num_parts + 1, [], 0
        if not position:
            log = self._log
            kept = f" whose {log.behaviour!r} is one of {list(log.behaviours)}" if log.behaviour else ""
            raise DataError(
                f"{', '.join(log.files)}: no events{kept}. Correct the dataset config, or give other files."
            )
        if height:
            self._write_part(num_parts, waiting)
        rejected.save(self._made.folder / REJECTED_NAME)
        return counts.tolist()

    def _write_part(self, number: int, frames: list[pl.DataFrame]) -> None:
        put_frame(self._path("part", number), pl.concat(frames).sort(SLOT, maintain_order=True), group_rows=GROUP_ROWS)

    def _order(self, bucket: int) -> list[int]:
        """Write the events of a bucket in order, and its items; how many events and users it has."""
        log, first = self._log, self._ends[bucket - 1] if bucket else 0
        inside = pl.col(SLOT).is_between(first, self._ends[bucket] - 1)
        events = pl.scan_parquet(self._parts(), glob=False).filter(inside).drop(SLOT).collect().sort(POSITION)
        if not log.time:
            events = events.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).over(log.user).alias(TIME))
        events = events.unique([log.user, log.item, TIME], keep="first", maintain_order=True)
        named = filled(events, log.attributes).with_columns(
            pl.lit(False).alias(SEVERAL + name) for name in log.attributes
        )
        put_frame(self._path("items", bucket), self._earliest(named))
        events = events.sort(log.user, TIME, POSITION).select(log.user, log.item, TIME)
        put_frame(self._path("bucket", bucket), events)
        return [events.height, events[log.user].n_unique()]

    def _earliest(self, named: pl.DataFrame) -> pl.DataFrame:
        """Of each item the earliest row, and of each attribute whether there are several values."""
        item, names = self._log.item, self._log.attributes
        rows = named.sort(*([TIME] if self._log.time else []), POSITION)
        # By their different values first, which are few.
        rows = rows.unique([item, *names, *(SEVERAL + name for name in names)], keep="first", maintain_order=True)
        several = (pl.col(SEVERAL + name).any() | (pl.col(name).n_unique() > 1) for name in names)
        firsts = pl.col(*names, TIME, POSITION).first()
        return rows.group_by(item, maintain_order=True).agg(firsts, *several)


def keys_of(users: pl.Series) -> Tensor:
    """Int64 keys of users, as ingest has them: integers themselves, texts hashed."""
    return (string_keys(users) if users.dtype == pl.String else users).to_torch()


def _ends(slots: list[int]) -> list[int]:
    """Slot behind the last of each bucket; no bucket is empty."""
    ends, inside = list[int](), 0
    for slot, size in enumerate(slots):
        if inside and size and inside + size > EVENTS_AT_ONCE:
            ends.append(slot)
            inside = 0
        inside += size
    return [*ends, len(slots)]


def _codes(keys: pl.Series, known: pl.Series) -> Tensor:
    """Place of each key among those known."""
    codes = pl.DataFrame({known.name: known, CODE: pl.int_range(len(known), dtype=pl.Int64, eager=True)})
    return pl.DataFrame(keys).join(codes, on=known.name, how="left", maintain_order="left")[CODE].to_torch()
