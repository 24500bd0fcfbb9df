"""Targets with their histories: which events are predicted in which split, from what, and against which negatives.

Everything is an index into the events in order (`recsys.data.events`): user by user, oldest first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import polars as pl
import pyarrow as pa
import torch
from torch import Tensor

from recsys.core.errors import ConfigError, DataError
from recsys.data.dataset import SPLIT_NAMES
from recsys.data.events import Events
from recsys.ops.hashing import mix64, salt_for

DRAWS = 200  # for one negative, before giving up
NON_NEGATIVE = 0x7FFFFFFFFFFFFFFF


class TargetSplit(Enum):
    """Which events are targets of which split."""

    LEAVE_ONE_OUT = "leave_one_out"  # of each user the last event is test, the one before validation, the others train
    CHRONOLOGICAL = "chronological"  # over all users: the newest events are test, the next newest validation


@dataclass(frozen=True, kw_only=True)
class SplitTargets:
    """How targets are divided; the shares are those of CHRONOLOGICAL."""

    method: TargetSplit = TargetSplit.LEAVE_ONE_OUT
    validation: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        if min(self.validation, self.test) <= 0 or self.validation + self.test >= 1:
            raise ConfigError(
                f"dataset.split.validation={self.validation}, test={self.test}: both must be above 0 and leave "
                "something for train."
            )


class NegativeMethod(Enum):
    """What a negative is drawn from: the positives of its own split, so that an item alone tells nothing of the label.

    Drawn from the whole log, items that only test holds would be negatives of train and never positives; drawn from
    train, they would be positives of test and never negatives. Either gives away the label of a rare item.
    """

    POPULARITY = "popularity"  # each positive with equal chance
    UNIFORM = "uniform"  # each of their items with equal chance


def gap_buckets(gaps: Tensor) -> Tensor:
    """0 for a gap of 0, else floor(log2(gap)) + 1: [1], [2, 3], [4, 7], …; int64, any shape, gaps not negative."""
    return torch.frexp(gaps.double()).exponent.long()


@dataclass(frozen=True)
class Targets:
    """T targets of one split by time, int64.

    `event` (T,), indices into the events; `place` (T,), how many events of its user come before; `negatives` (T, n),
    items.
    """

    event: Tensor
    place: Tensor
    negatives: Tensor

    def pieces(self, at_once: int) -> "Iterator[Targets]":
        """The targets, so many at a time."""
        columns = (self.event, self.place, self.negatives)
        for piece in zip(*(column.split(at_once) for column in columns), strict=True):
            yield Targets(*piece)


def user_places(events: Events) -> Tensor:
    """How many events of its user come before each event, int64 (E,)."""
    _, counts = torch.unique_consecutive(events.user, return_counts=True)
    starts = torch.repeat_interleave(torch.cumsum(counts, 0) - counts, counts)
    return torch.arange(starts.numel()) - starts


def split_codes(events: Events, split: SplitTargets) -> Tensor:
    """Split of each event as an index into `SPLIT_NAMES`, int64 (E,).

    Raises:
        DataError: too few different times to cut between.
    """
    if split.method is TargetSplit.LEAVE_ONE_OUT:
        _, counts = torch.unique_consecutive(events.user, return_counts=True)
        from_end = torch.repeat_interleave(counts, counts) - 1 - user_places(events)
        return (2 - from_end).clamp(min=0)
    times = torch.sort(events.time).values
    num_test, num_validation = (int(times.numel() * share + 1e-6) for share in (split.test, split.validation))
    # Events of one time stay together: a cut lies before the first event of its time.
    first, second = times[times.numel() - num_test - num_validation], times[times.numel() - max(num_test, 1)]
    if not int(times[0]) < int(first) < int(second):
        raise DataError(
            f"a chronological split of {times.numel()} events from {int(times[0])} to {int(times[-1])}: validation "
            f"would begin at {int(first)} and test at {int(second)}, so a split would be empty. Give more events or "
            "finer times, enlarge the shares of dataset.split, or choose leave_one_out."
        )
    return (events.time >= first).long() + (events.time >= second)


def first_meetings(events: Events) -> Tensor:
    """Whether each event is the first of its user with its item, bool (E,)."""
    pairs = events.user * events.items.height + events.item
    ascending, order = torch.sort(pairs, stable=True)
    first = torch.ones_like(pairs, dtype=torch.bool)
    first[order[1:]] = ascending[1:] != ascending[:-1]
    return first


def choose_targets(events: Events, codes: Tensor, *, min_history: int, stride: int, repeats: bool) -> list[Tensor]:
    """Events to predict in each split, by time (then user), as indices, int64.

    Args:
        codes: of `split_codes`.
        min_history: events that must lie before a target.
        stride: of each user's train events every so many, counted back from the last one.
        repeats: also events with an item that their user has met before.
    Raises:
        DataError: a split has none.
    """
    place = user_places(events)
    num_train = torch.zeros(len(events.users), dtype=torch.int64).index_add_(0, events.user, (codes == 0).long())
    from_last = num_train[events.user] - 1 - place
    wanted = (place >= min_history) & ((codes != 0) | (from_last % stride == 0))
    if not repeats:
        wanted &= first_meetings(events)
    chosen: list[Tensor] = []
    for code, name in enumerate(SPLIT_NAMES):
        index = ((codes == code) & wanted).nonzero().squeeze(1)
        if not index.numel():
            raise DataError(
                f"the {name} split has no event with {min_history} event(s) of its user before it"
                f"{'' if repeats else ' and an item new to its user'}. Give more events, "
                "or lower dataset.min_history."
            )
        chosen.append(index[torch.argsort(events.time[index], stable=True)])
    return chosen


def draw_negatives(events: Events, event: Tensor, method: NegativeMethod, *, num: int, salt: int) -> Tensor:
    """Items that the target's user never met, before or after, int64 (T, num); independent draws, so one may repeat.

    Args:
        event: the split's targets, int64 (T,).
        salt: of the split; draws are a hash of it and of the target's place, whatever the number of threads.
    Raises:
        DataError: a user has met so many of the split's items that none was found.
    """
    num_items = events.items.height
    met = torch.unique(events.user * num_items + events.item)
    pool = events.item[event]
    if method is NegativeMethod.UNIFORM:
        pool = torch.unique(pool)
    users = torch.repeat_interleave(events.user[event], num)
    drawn, pending = torch.empty_like(users), torch.arange(users.numel())
    for attempt in range(DRAWS):
        hashed = mix64(pending + salt_for("negatives", attempt, salt)) & NON_NEGATIVE
        drawn[pending] = pool[hashed % pool.numel()]
        pairs = users[pending] * num_items + drawn[pending]
        at = torch.searchsorted(met, pairs).clamp(max=met.numel() - 1)
        pending = pending[met[at] == pairs]
        if not pending.numel():
            return drawn.view(-1, num)
    raise DataError(
        f"user {events.users[int(users[pending[0]])]!r} has met nearly all of the {torch.unique(pool).numel()} items "
        f"of a split: no negative in {DRAWS} draws. Remove such users, or set dataset.negatives=uniform."
    )


def rows_of(events: Events, targets: Targets, names: dict[str, str], *, max_length: int) -> pl.DataFrame:
    """Raw rows of targets: of each the positive one, then its negatives, which have the same history.

    Args:
        names: column names in the log of `user`, `item` and `time`.
        max_length: events of a history; the most recent ones are kept, and they come first.
    Returns:
        `label` Int8, user, item, time (Int64), the attributes; lists `hist_<item>`, `hist_<attribute>` and `hist_gap`
        (Int64), equally long on a row.
    """
    per_target = 1 + targets.negatives.size(1)
    event = torch.repeat_interleave(targets.event, per_target)
    item = torch.cat([events.item[targets.event].unsqueeze(1), targets.negatives], 1).reshape(-1)
    label = (torch.arange(event.numel()) % per_target == 0).to(torch.int8)
    lengths = torch.repeat_interleave(targets.place.clamp(max=max_length), per_target)
    row, past, offsets = newest_first(event, lengths)
    target = events.items[pl.Series(item.numpy())]
    seen = events.items[pl.Series(events.item[past].numpy())]
    gaps = pl.Series(gap_buckets(events.time[event[row]] - events.time[past]).numpy())
    return pl.DataFrame(
        [
            pl.Series("label", label.numpy()),
            events.users.gather(pl.Series(events.user[event].numpy())).alias(names["user"]),
            *target.get_columns(),
            pl.Series(names["time"], events.time[event].numpy()),
            *(lists(f"hist_{column.name}", column, offsets) for column in seen.get_columns()),
            lists("hist_gap", gaps, offsets),
        ]
    )


def newest_first(ends: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each of R rows the `lengths` events before the event `ends`, backwards; all int64.

    Returns:
        row (N,) and event (N,) of each value, N the sum of lengths; offsets (R + 1,) of the rows.
    """
    offsets = torch.cat([lengths.new_zeros(1), torch.cumsum(lengths, 0)])
    row = torch.repeat_interleave(torch.arange(lengths.numel()), lengths)
    back = torch.arange(row.numel()) - offsets[row]
    return row, ends[row] - 1 - back, offsets


def lists(name: str, values: pl.Series, offsets: Tensor) -> pl.Series:
    """Values (N,) as one list a row; `offsets` int64 (rows + 1,), from 0 to N."""
    arrow = pa.LargeListArray.from_arrays(pa.array(offsets.numpy()), values.to_arrow())
    return pl.Series(name, arrow)
