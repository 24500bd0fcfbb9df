"""Scores in buckets of four slots: worked out by hand, the paper's guarantee, streams apart, state."""

import pytest
import torch
from torch import Tensor

from recsys.ops.hot_sketch import MIN_BUCKETS, SLOTS, HotSketch
from tests.ops import splitmix64

LONG = torch.int64


def row_of(key: int, width: int) -> int:
    """Bucket of an id, by plain integers."""
    return splitmix64.row(key, 0, width)


def same_bucket(count: int, *, width: int = MIN_BUCKETS) -> list[int]:
    """The first ids that share a bucket with id 1."""
    wanted = row_of(1, width)
    return [key for key in range(1, 5000) if row_of(key, width) == wanted][:count]


def update(sketch: HotSketch, ids: list[int], importance: list[int], stream: int = 0) -> None:
    sketch.update(torch.full((len(ids),), stream), torch.tensor(ids, dtype=LONG), torch.tensor(importance, dtype=LONG))


def scores(sketch: HotSketch) -> dict[int, int]:
    kept = sketch.scores >= 0
    return dict(zip(sketch.ids[kept].tolist(), sketch.scores[kept].tolist(), strict=True))


def test_known_ids_add_up_and_a_newcomer_inherits_the_least_score() -> None:
    sketch = HotSketch([1])
    a, b, c, d, e, f = same_bucket(6)
    update(sketch, [a, b, c, d, a], [5, 9, 7, 3, 1])
    assert scores(sketch) == {a: 6, b: 9, c: 7, d: 3}
    update(sketch, [e, a], [2, 10])
    assert scores(sketch) == {a: 16, b: 9, c: 7, e: 3 + 2}, "d had the least"
    update(sketch, [f, f, d], [1, 1, 1])
    assert scores(sketch) == {a: 16, b: 9, f: 5 + 2, d: 7 + 1}, "f first, for e; then d, for the older of two sevens"


def test_of_more_newcomers_than_slots_the_most_important_enter() -> None:
    sketch = HotSketch([1])
    ids = same_bucket(6)
    update(sketch, ids, [3, 8, 1, 9, 4, 2])
    assert scores(sketch) == {ids[1]: 8, ids[3]: 9, ids[4]: 4, ids[0]: 3}


def test_holders_are_never_evicted_and_a_bucket_of_holders_lets_nobody_in() -> None:
    sketch = HotSketch([SLOTS])
    ids = same_bucket(5)
    update(sketch, ids[:SLOTS], [1, 1, 1, 1])
    places, promoted = sketch.promote()
    assert places.tolist() == [0, 1, 2, 3] and promoted.tolist() == ids[:SLOTS]
    update(sketch, ids[SLOTS:], [1000])
    assert scores(sketch) == dict.fromkeys(ids[:SLOTS], 1)


def test_importance_of_zero_is_nothing() -> None:
    sketch = HotSketch([1])
    update(sketch, [1, 2, 3], [0, 0, 0])
    assert scores(sketch) == {}
    update(sketch, [], [])
    assert sketch.promote()[0].tolist() == []


def test_the_best_newcomer_takes_the_place_of_the_worst_holder() -> None:
    sketch = HotSketch([3])
    update(sketch, [1, 2, 3], [100, 300, 200])
    places, ids = sketch.promote()
    assert dict(zip(places.tolist(), ids.tolist(), strict=True)) == {0: 2, 1: 3, 2: 1}
    update(sketch, [7, 8, 9], [120, 200, 250])
    places, ids = sketch.promote()
    assert dict(zip(places.tolist(), ids.tolist(), strict=True)) == {2: 9}, "250 > 1.2 * 100, but 200 <= 1.2 * 200"
    update(sketch, [8], [41])
    places, ids = sketch.promote()
    assert dict(zip(places.tolist(), ids.tolist(), strict=True)) == {1: 8}, "241 > 1.2 * 200"


def test_streams_are_apart() -> None:
    sketch = HotSketch([1, 2])
    update(sketch, [5, 6], [10, 20], stream=0)
    update(sketch, [5, 6, 7], [1, 3, 2], stream=1)
    places, ids = sketch.promote()
    assert list(zip(places.tolist(), ids.tolist(), strict=True)) == [(0, 6), (1, 6), (2, 7)]


def test_any_64_bit_id() -> None:
    sketch = HotSketch([5])
    ids = [2**63 - 1, -(2**63), -1, 0, 2**53 + 1]
    update(sketch, ids, [5, 4, 3, 2, 1])
    assert scores(sketch) == dict(zip(ids, [5, 4, 3, 2, 1], strict=True))
    assert sketch.promote()[1].tolist() == ids


def test_decay() -> None:
    sketch = HotSketch([1])
    update(sketch, [1, 2], [1000, 1])
    sketch.decay(0.5)
    assert scores(sketch) == {1: 500, 2: 0}


@pytest.mark.parametrize("factor", [0.0, 1e-7, 0.5 ** (10 / 2000), 1 / 3, 0.5, 1.0])
def test_decay_of_any_score_is_that_of_whole_numbers(factor: float) -> None:
    """Up to 2**62: priors are 2**56 at most, and look-ups add to them."""
    powers = [2**power for power in range(63)]
    values = sorted(
        {value + d for value in powers for d in (-1, 0, 1) if value + d <= 2**62} | {3**30 * 77, 2**56 + 12345}
    )
    sketch = HotSketch([len(values)])
    sketch.scores[: len(values)] = torch.tensor(values, dtype=LONG)
    sketch.decay(factor)
    share = round(factor * 2**20)
    assert sketch.scores[: len(values)].tolist() == [value * share // 2**20 for value in values]
    assert (sketch.scores[len(values) :] == -1).all(), "free slots stay free"


def test_one_id_with_most_of_a_large_batch_never_overflows() -> None:
    """A score near its limit, batches of 131,072 rows and a half-life of 2000 steps."""
    sketch = HotSketch([2])
    sketch.hold(torch.tensor([0]), torch.tensor([7]), torch.tensor([2**56]))
    for _ in range(3000):
        update(sketch, [7, 9], [10 * 91_750 * 2**16, 10 * 39_322 * 2**16])
        sketch.decay(0.5 ** (10 / 2000))
        assert scores(sketch)[7] > scores(sketch)[9] > 0


def test_holding_by_hand() -> None:
    sketch = HotSketch([6])
    ids = [*same_bucket(5), next(key for key in range(1, 99) if row_of(key, MIN_BUCKETS) != row_of(1, MIN_BUCKETS))]
    sketch.hold(torch.arange(6), torch.tensor(ids), torch.tensor([60, 50, 40, 30, 20, 10]))
    assert scores(sketch) == {ids[0]: 60, ids[1]: 50, ids[2]: 40, ids[3]: 30, ids[5]: 10}
    assert (sketch.slot_of < 0).tolist() == [False, False, False, False, True, False], "the fifth of its bucket"
    update(sketch, [ids[5] + 1000], [1])
    assert sketch.promote()[0].tolist() == [4], "its place is free"


def test_order_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    streams = torch.randint(3, (500,), generator=generator)
    ids, importance = torch.randint(99, (500,), generator=generator), torch.randint(50, (500,), generator=generator)
    states = []
    for order in (torch.arange(500), torch.randperm(500, generator=generator)):
        sketch = HotSketch([3, 1, 20])
        sketch.update(streams[order], ids[order], importance[order])
        sketch.promote()
        states.append(sketch.state())
    assert torch.equal(*states)


def test_state_goes_on() -> None:
    generator = torch.Generator().manual_seed(0)
    first = HotSketch([3, 10])
    for part in range(6):
        if part == 3:
            second = HotSketch([3, 10])
            second.restore(first.state())
        batch = (torch.randint(2, (99,), generator=generator), torch.randint(200, (99,), generator=generator))
        for sketch in [first, second] if part >= 3 else [first]:
            sketch.update(*batch, torch.full((99,), 7))
            sketch.promote()
            sketch.decay(0.9)
    assert torch.equal(first.state(), second.state()) and torch.equal(first.held, second.held)


def zipf(size: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """(ids, shares of all ids)."""
    shares = 1 / torch.arange(1, size + 1, dtype=torch.float64) ** 1.1
    shares /= shares.sum()
    drawn = torch.multinomial(shares, count, replacement=True, generator=torch.Generator().manual_seed(seed))
    return drawn * 7_919 + 13, shares  # ids that rank by nothing


@pytest.mark.parametrize("width", [50, 400])
def test_guarantee_of_the_paper(width: int) -> None:
    """Of ids with share g, more than 1 - (1 - g) / (3 g w) are in the sketch at the end."""
    kept, bound, seeds = torch.zeros(40), torch.zeros(40), 4
    for seed in range(seeds):
        ids, shares = zipf(20_000, 40_000, seed)
        sketch = HotSketch([width])
        for part in (ids + seed).split(128):
            sketch.update(torch.zeros(len(part), dtype=LONG), part, torch.ones(len(part), dtype=LONG))
        kept += torch.isin(torch.arange(40) * 7_919 + 13 + seed, sketch.ids) / seeds
        bound = (1 - (1 - shares[:40]) / ((SLOTS - 1) * shares[:40] * width)).clamp(min=0).float()
    assert float(bound[0]) > 0.8
    assert float(kept.mean()) > float(bound.mean())
    assert (kept[bound > 0.95] >= 0.85).all()


def test_places_go_to_the_most_important_ids_of_a_skewed_stream() -> None:
    ids, _ = zipf(20_000, 100_000, 0)
    sketch = HotSketch([100])
    for number, part in enumerate(ids.split(512)):
        sketch.update(torch.zeros(len(part), dtype=LONG), part, torch.ones(len(part), dtype=LONG))
        if number % 10 == 9:
            sketch.promote()
    holders = set(sketch.ids[sketch.slot_of].tolist())
    frequent = [rank * 7_919 + 13 for rank in range(50)]
    assert len(holders) == 100 and sum(key in holders for key in frequent) >= 47
