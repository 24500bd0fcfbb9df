"""The population stability index against its formula, and what it says of missing bins."""

import math
from collections.abc import Sequence

import pytest
import torch

from recsys.core.errors import DataError
from recsys.metrics import population_stability_index


def slow_index(expected: Sequence[float], actual: Sequence[float]) -> float:
    pairs = [(e or 0.5, a or 0.5) for e, a in zip(expected, actual, strict=True) if e or a]
    before, after = sum(e for e, _ in pairs), sum(a for _, a in pairs)
    return math.fsum((a / after - e / before) * math.log((a / after) / (e / before)) for e, a in pairs)


@pytest.mark.parametrize(
    ("expected", "actual", "vanished", "appeared"),
    [
        ([10, 20, 30], [10, 20, 30], 0, 0),
        ([10, 20, 30], [30, 20, 10], 0, 0),
        ([10, 0, 30], [10, 5, 30], 0, 1),
        ([10, 7, 30, 0], [10, 0, 0, 0], 2, 0),
        ([1, 0], [0, 1], 1, 1),
        ([5], [9], 0, 0),
        ([10**12, 1], [1, 10**12], 0, 0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_index_equals_its_formula(
    expected: list[int], actual: list[int], vanished: int, appeared: int, dtype: torch.dtype
) -> None:
    e, a = torch.tensor(expected, dtype=dtype), torch.tensor(actual, dtype=dtype)
    got = population_stability_index(e, a)
    assert got.index.value == pytest.approx(slow_index(expected, actual), rel=1e-12, abs=1e-15)
    assert (got.num_vanished, got.num_appeared) == (vanished, appeared)
    assert got.num_bins == sum(bool(x or y) for x, y in zip(expected, actual, strict=True))
    lost = sum(x for x, y in zip(expected, actual, strict=True) if not y) / sum(expected)
    new = sum(y for x, y in zip(expected, actual, strict=True) if not x) / sum(actual)
    assert (got.vanished_share.value, got.appeared_share.value) == pytest.approx((lost, new))
    back = population_stability_index(a, e)
    assert back.index.value == pytest.approx(got.index.value, rel=1e-12, abs=1e-15)
    assert back.num_vanished == appeared and back.appeared_share == got.vanished_share


def test_without_drift_the_index_is_what_chance_gives() -> None:
    generator, seen = torch.Generator().manual_seed(0), []
    for _ in range(60):
        sides = [torch.randint(0, 50, (n,), generator=generator) for n in (4000, 2500)]
        got = population_stability_index(*(torch.bincount(side, minlength=50) for side in sides))
        seen.append(got.index.value_or(0))
    assert got.by_chance.value == pytest.approx(49 * (1 / 4000 + 1 / 2500))
    # One index has a standard deviation of about sqrt(2 / 49) of its mean; 60 of them 2.6%.
    assert sum(seen) / 60 == pytest.approx(got.by_chance.value_or(0), rel=0.1)


@pytest.mark.parametrize(
    ("expected", "actual", "reason"),
    [
        ([], [], "there are no expected rows"),
        ([0, 0], [1, 2], "there are no expected rows"),
        ([1, 2], [0, 0], "there are no actual rows"),
    ],
)
def test_a_side_without_rows_has_no_index(expected: list[int], actual: list[int], reason: str) -> None:
    got = population_stability_index(torch.tensor(expected), torch.tensor(actual))
    assert got.index.undefined_reason == got.appeared_share.undefined_reason == reason


@pytest.mark.parametrize(
    ("expected", "actual", "words"),
    [
        ([1.0, -1.0], [1.0, 1.0], "expected counts: 1 of 2"),
        ([1.0, 1.0], [1.0, math.nan], "actual counts: 1 of 2"),
        ([1.0, 1.0], [1.0, math.inf], "actual counts"),
        ([1.0], [1.0, 2.0], "the same bins"),
        ([[1.0]], [[1.0]], "one dimension"),
    ],
)
def test_impossible_counts_are_refused(expected: list[float], actual: list[float], words: str) -> None:
    with pytest.raises(DataError, match=words):
        population_stability_index(torch.tensor(expected), torch.tensor(actual))
