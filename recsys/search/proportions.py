"""Widths by proportion: what random search, TPE and the exponent of mixed dimensions choose among."""

from collections.abc import Sequence

from recsys.search.choice import Choice, Space
from recsys.search.fit import by_width, fit

REACH = 2.0
"""Trials ask for up to 2 ** REACH times the width that a feature's popularity earns, or so much less."""


def proportions(space: Space, exponent: float, weights: Sequence[float]) -> list[list[float]]:
    """Relative width of every block: 2 ** weight of the feature, times the block's popularity ** exponent."""
    top = max(block.popularity for own in space.blocks for block in own)
    floor = 1e-12  # ids that training never saw are not popular, but may have a column when all else is bought
    return [
        [2**weight * max(block.popularity / top, floor) ** exponent for block in own]
        for own, weight in zip(space.blocks, weights, strict=True)
    ]


def proportional(space: Space, budget_bytes: int, *, exponent: float, weights: Sequence[float]) -> Choice:
    """The choice of these proportions within the budget; with exponent 0 and equal weights, uniform widths."""
    return fit(space, by_width(space, proportions(space, exponent, weights)), budget_bytes)
