"""Items that a target's user never met: what a target is told from."""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.data.events import Events
from recsys.ops.hashing import mix64, salt_for

DRAWS = 200  # for one negative, before what its user met is taken out of the pool
NON_NEGATIVE = 0x7FFFFFFFFFFFFFFF


class NegativeMethod(Enum):
    """What a negative is drawn from: the positives of its own split, so that an item alone tells nothing of the label.

    Drawn from the whole log, items that only test holds would be negatives of train and never positives; drawn from
    train, they would be positives of test and never negatives. Either gives away the label of a rare item.
    """

    POPULARITY = "popularity"  # each positive with equal chance
    UNIFORM = "uniform"  # each of their items with equal chance


@dataclass(frozen=True)
class Pool:
    """What a split's negatives are drawn from: its items, int64 (I,), and the sums of their shares up to each, (I,)."""

    items: Tensor
    ends: Tensor

    @staticmethod
    def of(counts: Tensor, method: NegativeMethod) -> "Pool":
        """From the number of the split's positives with each item, int64 (all items,)."""
        items = counts.nonzero().squeeze(1)
        shares = counts[items] if method is NegativeMethod.POPULARITY else torch.ones_like(items)
        return Pool(items, torch.cumsum(shares, 0))

    def drawn(self, hashes: Tensor) -> Tensor:
        """An item for each hash, int64, any shape."""
        at = (hashes & NON_NEGATIVE) % self.ends[-1]
        return self.items[torch.searchsorted(self.ends, at, right=True)]

    def without(self, met: Tensor) -> "Pool":
        """What is left of it without these items, int64 (M,); perhaps nothing."""
        left = torch.isin(self.items, met, invert=True)
        shares = torch.diff(self.ends, prepend=self.ends.new_zeros(1))
        return Pool(self.items[left], torch.cumsum(shares[left], 0))


def met_pairs(events: Events) -> Tensor:
    """Pairs of user and item as one number each, int64, ascending."""
    pairs: Tensor = torch.unique(events.user * events.items.height + events.item)
    return pairs


def draw_negatives(
    events: Events, event: Tensor, place: Tensor, met: Tensor, pool: Pool, *, num: int, salt: int
) -> Tensor:
    """Items that the target's user never met, before or after, int64 (T, num); independent draws, so one may repeat.

    Args:
        event, place: of targets, int64 (T,), as in `Targets`.
        met: of `met_pairs`.
        salt: of the split; draws are a hash of it, the user's key and the place, whatever else is in the bucket.
    Raises:
        DataError: a user has met all of the split's items.
    """
    users = torch.repeat_interleave(events.user[event], num)
    numbers = (place.unsqueeze(1) * num + torch.arange(num)).flatten()
    keys = mix64(events.user_keys[users] + salt) + numbers
    drawn, pending = torch.empty_like(users), torch.arange(users.numel())
    for attempt in range(DRAWS):
        drawn[pending] = pool.drawn(mix64(keys[pending] + salt_for("negatives", attempt, salt)))
        pairs = users[pending] * events.items.height + drawn[pending]
        at = torch.searchsorted(met, pairs).clamp(max=met.numel() - 1)
        pending = pending[met[at] == pairs]
        if not pending.numel():
            return drawn.view(-1, num)
    for user in torch.unique(users[pending]).tolist():
        own = pending[users[pending] == user]
        left = pool.without(_met_by(user, events, met))
        if not left.items.numel():
            raise _met_all(events.users[user], pool)
        drawn[own] = left.drawn(mix64(keys[own] + salt_for("negatives", DRAWS, salt)))
    return drawn.view(-1, num)


def _met_by(user: int, events: Events, met: Tensor) -> Tensor:
    """Items that a user met, int64 (M,)."""
    first = user * events.items.height
    begin, end = torch.searchsorted(met, torch.tensor([first, first + events.items.height])).tolist()
    return met[begin:end] - first


def _met_all(user: object, pool: Pool) -> DataError:
    return DataError(
        f"user {user!r} has met all of the {pool.items.numel()} items that targets of a split have, so none is "
        "left for a negative. Remove this user from the log, or give the split more items: more events, or a larger "
        "share of dataset.split."
    )
