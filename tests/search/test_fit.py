"""Budgets are met to the byte, masks only shrink, and what cannot be reached is refused with the floor."""

import itertools
import random

import pytest

from recsys.core.errors import ConfigError
from recsys.search.choice import Choice
from recsys.search.fit import Column, by_width, fit
from recsys.search.mde import MdeSearchConfig
from recsys.search.plans import plan_of
from recsys.search.proportions import proportional
from tests.search.world import FEATURES, FULL_BYTES, SPACE

BUDGETS = [*range(SPACE.floor_bytes, FULL_BYTES, 197), FULL_BYTES]
ONES = [1.0] * len(FEATURES)


def every_column() -> list[Column]:
    return [
        Column(feature, block, column)
        for feature, block in SPACE.block_numbers
        for column in range(FEATURES[feature].embedding_dim)
    ]


def cells(choice: Choice) -> set[tuple[int, int, int]]:
    """(feature, id, column) of all numbers that a choice stores."""
    found = set()
    for number, pieces in enumerate(choice.features):
        first = 0
        for piece in pieces:
            ids = range(first, first + piece.size)
            found |= {(number, *cell) for cell in itertools.product(ids, piece.columns)}
            first += piece.size
    return found


@pytest.mark.parametrize("seed", range(3))
def test_any_order_fills_any_budget_and_the_plan_takes_those_bytes(seed: int) -> None:
    order = every_column()
    random.Random(seed).shuffle(order)
    for budget in BUDGETS:
        choice = fit(SPACE, order, budget)
        assert 0.99 * budget <= choice.num_bytes <= budget
        assert plan_of(SPACE, choice).num_bytes == choice.num_bytes == 4 * len(cells(choice))


def test_a_smaller_budget_keeps_part_of_what_a_larger_one_keeps() -> None:
    order = by_width(SPACE, [[4.0, 2.0, 1.0]] * 3 + [[1.0] * len(SPACE.blocks[3])])
    kept = [cells(fit(SPACE, order, budget)) for budget in BUDGETS]
    assert all(small <= large for small, large in itertools.pairwise(kept))
    assert kept[-1] == cells(SPACE.full)


def test_uniform_proportions_differ_by_one_column_at_most() -> None:
    choice = proportional(SPACE, FULL_BYTES // 2, exponent=0.0, weights=ONES)
    widths = {len(piece.columns) for pieces in choice.features[:3] for piece in pieces}
    assert max(widths) - min(widths) <= 1


def test_a_budget_below_the_floor_is_refused_with_the_floor() -> None:
    with pytest.raises(ConfigError, match=f"below the floor of {SPACE.floor_bytes:,}.*Raise it to 0.000"):
        fit(SPACE, every_column(), SPACE.floor_bytes - 1)
    assert fit(SPACE, every_column(), SPACE.floor_bytes).num_bytes <= SPACE.floor_bytes


def test_popular_blocks_are_widest_under_the_fitted_exponent() -> None:
    (found,) = MdeSearchConfig(budget_mib=1.0).find(SPACE, [FULL_BYTES // 3])
    for pieces in found.choice.features:
        widths = [len(piece.columns) for piece in pieces]
        assert widths == sorted(widths, reverse=True)
    assert max(len(piece.columns) for pieces in found.choice.features for piece in pieces) >= 7
    assert found.choice.num_bytes > 0.99 * (FULL_BYTES // 3)


def test_the_exponent_is_zero_where_everything_fits() -> None:
    (found,) = MdeSearchConfig(budget_mib=1.0).find(SPACE, [FULL_BYTES])
    assert found.choice == SPACE.full


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"budget_mib": 1.0, "compression_ratio": 2.0}, "Set one of them"),
        ({"budget_mib": -1.0}, "above 0"),
        ({"budget_mib": 1.0, "frontier": [0.0]}, "search.frontier=0.0"),
        ({"budget_mib": 1.0, "blocks": 0}, "at least one"),
        ({"budget_mib": 1.0, "holdout": 1.0}, "a share of the training rows"),
    ],
)
def test_impossible_options_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MdeSearchConfig(**values)  # type: ignore[arg-type]


def test_a_search_without_a_budget_is_refused() -> None:
    with pytest.raises(ConfigError, match="budget_mib is missing"):
        MdeSearchConfig().budgets(FEATURES)
