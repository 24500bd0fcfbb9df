"""Event logs: who met which item and when, as integer codes in the order in which it happened.

Order of events: by user, then by time, then by position in the files. So of two events of one user at one time the one
that the files name first counts as the earlier one; nothing else is known about them, and this needs no guess.
An event that repeats user, item and time of another one is the same event: it is kept once, and the number is logged.
"""

import logging
from dataclasses import dataclass

import polars as pl
from torch import Tensor

from recsys.core.errors import DataError
from recsys.data.event_log import TIME, EventLog, event_frames, filled
from recsys.data.faults import Rejected

logger = logging.getLogger(__name__)

POSITION, USER_CODE, ITEM_CODE = "__position__", "__user__", "__item__"


@dataclass(frozen=True)
class Events:
    """E events in order; a code is the rank of its key among all users' or items' keys.

    `user`, `item` int64 (E,), codes; `time` int64 (E,), in the log's unit, ascending inside a user.
    `users`, a column of keys by code; `items`, a frame with the item column and its attributes, by code, without nulls.
    """

    user: Tensor
    item: Tensor
    time: Tensor
    users: pl.Series
    items: pl.DataFrame


def read_events(log: EventLog, rejected: Rejected) -> Events:
    """All events of a log, those with faults set aside by file; memory grows with their number.

    Raises:
        DataError: a file is missing, unreadable or lacks a column; a user, item or time is missing or of another type,
            of more events than may be set aside.
    """
    parts = list(event_frames(log, rejected))
    if not sum(part.height for part in parts):
        kept = f" whose {log.behaviour!r} is one of {list(log.behaviours)}" if log.behaviour else ""
        raise DataError(f"{', '.join(log.files)}: no events{kept}. Correct the dataset config, or give other files.")
    frame = pl.concat(parts).with_columns(pl.int_range(pl.len()).alias(POSITION))
    if not log.time:
        frame = frame.with_columns(pl.int_range(pl.len()).over(log.user).alias(TIME))
    events = frame.unique([log.user, log.item, TIME], keep="first", maintain_order=True)
    users = events[log.user].unique().sort()
    items = _items(events, log)
    coded = _coded(_coded(events, users, USER_CODE), items[log.item], ITEM_CODE)
    coded = coded.sort(USER_CODE, TIME, POSITION)
    logger.info(
        "%d events of %d users and %d items; left out %d repeated ones (same user, item and time)",
        *(coded.height, len(users), items.height, frame.height - events.height),
    )
    user, item, time = (coded[name].to_torch() for name in (USER_CODE, ITEM_CODE, TIME))
    return Events(user, item, time, users, items)


def _items(events: pl.DataFrame, log: EventLog) -> pl.DataFrame:
    """Items by key, with the attributes of their earliest event; of several, or without times, the files' first."""
    earliest = events.sort(TIME, POSITION) if log.time else events
    named = filled(earliest, log.attributes)
    for name in log.attributes:
        several = named.group_by(log.item).agg(pl.col(name).n_unique()).filter(pl.col(name) > 1).height
        if several:
            logger.warning("%d items have several values of %r: each keeps that of its earliest event", several, name)
    return named.select(log.item, *log.attributes).unique(log.item, keep="first", maintain_order=True).sort(log.item)


def _coded(frame: pl.DataFrame, keys: pl.Series, name: str) -> pl.DataFrame:
    codes = pl.DataFrame({keys.name: keys, name: pl.int_range(len(keys), eager=True)})
    return frame.join(codes, on=keys.name, how="left", maintain_order="left")
