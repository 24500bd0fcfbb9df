"""Negatives of users who have met nearly everything."""

import polars as pl
import pytest
import torch

from recsys.core.errors import DataError
from recsys.data.events import Events
from recsys.data.negatives import NegativeMethod, Pool, draw_negatives, met_pairs

NUM_ITEMS = 12


def events_of(met: dict[str, list[int]]) -> Events:
    """Each user's events with these items, in this order."""
    user = torch.tensor([code for code, own in enumerate(met.values()) for _ in own])
    item = torch.tensor([item for own in met.values() for item in own])
    items = pl.DataFrame({"item": [f"i{number:02d}" for number in range(NUM_ITEMS)]})
    return Events(user, item, torch.arange(len(user)), pl.Series("user", list(met)), torch.arange(len(met)), items)


def drawn(events: Events, counts: list[int], method: NegativeMethod, num: int) -> torch.Tensor:
    """Negatives of every event; the split's positives name items so often."""
    pool, event = Pool.of(torch.tensor(counts), method), torch.arange(events.user.numel())
    return draw_negatives(events, event, event, met_pairs(events), pool, num=num, salt=7)


@pytest.mark.parametrize(("method", "share"), [(NegativeMethod.POPULARITY, 0.75), (NegativeMethod.UNIFORM, 0.5)])
def test_rare_items_that_are_all_a_user_has_not_met_are_found(method: NegativeMethod, share: float) -> None:
    """`heavy` lacks items 9, 10 and 11, which have 4 of 9 billion positives; `light` draws as ever."""
    events = events_of({"light": [1], "heavy": list(range(9))})
    negatives = drawn(events, [10**9] * 9 + [1, 3, 0], method, 500)
    heavy, light = negatives[1:], negatives[0]
    assert set(heavy.flatten().tolist()) == {9, 10}
    assert (heavy == 10).double().mean().item() == pytest.approx(share, abs=0.03)
    assert set(light.tolist()) >= {0, *range(2, 9)} and 1 not in light


def test_who_met_all_items_of_a_split_is_told() -> None:
    events = events_of({"light": [1], "heavy": list(range(9))})
    with pytest.raises(DataError, match=r"user 'heavy' has met all of the 9 items .* Remove this user"):
        drawn(events, [1] * 9 + [0, 0, 0], NegativeMethod.UNIFORM, 1)
