"""`mde`: mixed dimensions whose exponent is fitted to the budget (Ginart et al., arXiv:1909.11810); nothing is trained.

Width D (p / p_top) ** alpha, p the share of look-ups of a block's ids: alpha = 0 gives full tables. The published
widths are powers of two; here they are whole numbers, and what is left of the budget buys the next column.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from recsys.search.choice import Space
from recsys.search.fit import by_width, fit
from recsys.search.method import Found, UntrainedSearch
from recsys.search.proportions import proportions

STEPS = 40
"""Of the bisection for alpha, which lies between 0 and LARGEST."""

LARGEST = 4.0


@dataclass(frozen=True, kw_only=True)
class MdeSearchConfig(UntrainedSearch):
    """The smallest exponent whose widths, the most popular block's being full, fit the budget."""

    def find(self, space: Space, budgets: Sequence[int]) -> list[Found]:
        """A choice within each budget."""
        found = []
        for budget in budgets:
            order = by_width(space, proportions(space, _exponent(space, budget), [0.0] * len(space.features)))
            found.append(Found(budget_bytes=budget, choice=fit(space, order, budget), score=None))
        return found


def _exponent(space: Space, budget_bytes: int) -> float:
    low, high = 0.0, LARGEST
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if _num_bytes(space, middle) <= budget_bytes else (middle, high)
    return high


def _num_bytes(space: Space, exponent: float) -> float:
    """Bytes of the widths as they come, not rounded: falls without steps as the exponent grows."""
    widths = proportions(space, exponent, [0.0] * len(space.features))
    return 4.0 * sum(
        block.size * width * feature.embedding_dim
        for feature, own, wanted in zip(space.features, space.blocks, widths, strict=True)
        for block, width in zip(own, wanted, strict=True)
    )
