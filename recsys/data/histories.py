"""Targets with their histories: which events are predicted in which split, and from what.

Everything is an index into the events of a bucket in order (`recsys.data.events`): user by user, oldest first.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

import polars as pl
import pyarrow as pa
import torch
from torch import Tensor

from recsys.core.errors import ConfigError, DataError
from recsys.data.dataset import SPLIT_NAMES
from recsys.data.events import Events
from recsys.data.ranks import Values, value_of_rank

Cuts = tuple[int, int]
"""Times at which validation and test begin."""


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


def gap_buckets(gaps: Tensor) -> Tensor:
    """0 for a gap of 0, else floor(log2(gap)) + 1: [1], [2, 3], [4, 7], …; int64, any shape, gaps not negative."""
    high = gaps >> 32  # in two halves: a double rounds 2**54 - 1 up to 2**54
    return torch.where(high > 0, torch.frexp(high.double()).exponent + 32, torch.frexp(gaps.double()).exponent).long()


@dataclass(frozen=True)
class Targets:
    """T targets of one split, int64.

    `event` (T,), indices into the events; `place` (T,), how many events of its user come before; `negatives` (T, n),
    items.
    """

    event: Tensor
    place: Tensor
    negatives: Tensor


def user_places(events: Events) -> Tensor:
    """How many events of its user come before each event, int64 (E,)."""
    _, counts = torch.unique_consecutive(events.user, return_counts=True)
    starts = torch.repeat_interleave(torch.cumsum(counts, 0) - counts, counts)
    return torch.arange(starts.numel()) - starts


def chronological_cuts(times: Callable[[], Iterator[Values]], num_events: int, split: SplitTargets) -> Cuts:
    """Where validation and test begin; events of one time stay together, so a cut lies before the first of its time.

    Args:
        times: gives those of all events, in pieces; called for each look at them.
    Raises:
        DataError: too few different times to cut between.
    """
    low = min(int(some.min()) for some in times())
    high = max(int(some.max()) for some in times())
    num_test, num_validation = (int(num_events * share + 1e-6) for share in (split.test, split.validation))
    ranks = (num_events - max(num_test + num_validation, 1), num_events - max(num_test, 1))
    first, second = (value_of_rank(rank, times, low=low, high=high) for rank in ranks)
    if not low < first < second:
        raise DataError(
            f"a chronological split of {num_events} events from {low} to {high}: validation would begin at {first} and "
            f"test at {second}, so a split would be empty. Give more events or finer times, enlarge the shares of "
            "dataset.split, or choose leave_one_out."
        )
    return first, second


def split_codes(events: Events, cuts: Cuts | None) -> Tensor:
    """Split of each event as an index into `SPLIT_NAMES`, int64 (E,), by these cuts or else LEAVE_ONE_OUT."""
    if cuts:
        return (events.time >= cuts[0]).long() + (events.time >= cuts[1])
    _, counts = torch.unique_consecutive(events.user, return_counts=True)
    from_end = torch.repeat_interleave(counts, counts) - 1 - user_places(events)
    return (2 - from_end).clamp(min=0)


def first_meetings(events: Events) -> Tensor:
    """Whether each event is the first of its user with its item, bool (E,)."""
    pairs = events.user * events.items.height + events.item
    ascending, order = torch.sort(pairs, stable=True)
    first = torch.ones_like(pairs, dtype=torch.bool)
    first[order[1:]] = ascending[1:] != ascending[:-1]
    return first


def choose_targets(events: Events, codes: Tensor, *, min_history: int, stride: int, repeats: bool) -> list[Tensor]:
    """Events to predict in each split, by time (then user), as indices, int64; a split may have none.

    Args:
        codes: of `split_codes`.
        min_history: events that must lie before a target.
        stride: of each user's train events every so many, counted back from the last one.
        repeats: also events with an item that their user has met before.
    """
    place = user_places(events)
    num_train = torch.zeros(len(events.users), dtype=torch.int64).index_add_(0, events.user, (codes == 0).long())
    from_last = num_train[events.user] - 1 - place
    wanted = (place >= min_history) & ((codes != 0) | (from_last % stride == 0))
    if not repeats:
        wanted &= first_meetings(events)
    chosen = [((codes == code) & wanted).nonzero().squeeze(1) for code in range(len(SPLIT_NAMES))]
    return [index[torch.argsort(events.time[index], stable=True)] for index in chosen]


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
