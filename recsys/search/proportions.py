"""Bytes by proportion, and three ways to spend them: what random search, greedy search, TPE and MDE choose among."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from recsys.core.specs import FeatureSpec
from recsys.embeddings.method import FLOAT_BYTES, num_ids
from recsys.search.choice import Choice, Piece, Pieces, Space
from recsys.search.fit import by_width, fit

REACH = 2.0
"""Trials ask for up to 2 ** REACH times the width that a feature's popularity earns, or so much less."""


class Way(Enum):
    """How a feature is made to fit its share of the budget."""

    WIDTH = "width"  # rows for its ids, narrow ones
    ROWS = "rows"  # full rows for its most frequent ids; the others read as out-of-vocabulary ids do
    HASH = "hash"  # full rows that ids share


@dataclass(frozen=True)
class Setting:
    """What a trial tries; all settings fill the budget."""

    exponent: float  # of popularity
    weights: tuple[float, ...]  # of each feature, powers of two
    ways: tuple[Way, ...]  # of each feature

    @staticmethod
    def first(space: Space, ways: Sequence[Way]) -> "Setting":
        """Where searches start: equal widths everywhere, or equal shares if widths are not to be chosen."""
        count, way = len(space.features), Way.WIDTH if Way.WIDTH in ways else ways[0]
        return Setting(0.0, (0.0,) * count, (way,) * count)


def choice_of(space: Space, budget_bytes: int, setting: Setting) -> Choice:
    """The choice of a setting: bytes in proportion to widths, which features that are not narrowed spend otherwise.

    Returns:
        At most the budget, and all of it but 0.5 % or, where no feature is narrowed or cut, a row.
    """
    narrow = proportional(space, budget_bytes, exponent=setting.exponent, weights=setting.weights)
    if set(setting.ways) == {Way.WIDTH}:
        return narrow
    features, left = list(narrow.features), budget_bytes - narrow.num_bytes
    # Hashed features first: what they cannot spend on whole rows, a feature with rows of its own can.
    for way, spend in ((Way.HASH, _hashed), (Way.ROWS, _cut)):
        for number in (place for place, own in enumerate(setting.ways) if own is way):
            own = sum(piece.num_bytes for piece in features[number])
            features[number] = spend(space.features[number], features[number], own + left)
            left += own - sum(piece.num_bytes for piece in features[number])
    return Choice(tuple(features))


def _hashed(feature: FeatureSpec, narrow: Pieces, num_bytes: int) -> Pieces:
    """As many shared full rows as the bytes buy; rows of their own if there are enough; narrow rows if not for one."""
    width = feature.embedding_dim
    rows = min(num_bytes // (width * FLOAT_BYTES), num_ids(feature))
    if not rows:
        return narrow
    shared = 0 if rows == num_ids(feature) else rows
    return (Piece(size=num_ids(feature), columns=tuple(range(width)), shared_rows=shared),)


def _cut(feature: FeatureSpec, narrow: Pieces, num_bytes: int) -> Pieces:
    """Full rows for as many ids as the bytes buy, what is left of a row for the next; narrow rows if not for one."""
    width, size = feature.embedding_dim, num_ids(feature)
    rows, rest = divmod(num_bytes // FLOAT_BYTES, width)
    if not rows:
        return narrow
    full = Piece(size=min(rows, size), columns=tuple(range(width)))
    if rows >= size:
        return (full,)
    others = (Piece(size=size - rows - 1, columns=()),) if rows + 1 < size else ()
    return (full, Piece(size=1, columns=tuple(range(rest))), *others)


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
