"""A budget of bytes spent on columns in an order of preference, to the last byte that a row takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from recsys.core.errors import ConfigError
from recsys.embeddings.method import FLOAT_BYTES
from recsys.search.choice import Block, Choice, Piece, Pieces, Space

UNSPENT = 0.005
"""Share of a budget that may be left over, rather than spent on another table for it."""


@dataclass(frozen=True)
class Column:
    """One column of the embeddings of one block of ids."""

    feature: int
    block: int
    column: int


def check_budget(space: Space, budget_bytes: int) -> None:
    """Refuse what no choice fits into.

    Raises:
        ConfigError: it is below the floor, which the message tells.
    """
    floor = space.floor_bytes
    if budget_bytes < floor:
        raise ConfigError(
            f"search.budget_mib={budget_bytes / 2**20:.4g} is {budget_bytes:,} bytes, below the floor of {floor:,}: "
            f"each of {len(space.features)} features keeps one column for its first block of ids. Raise it to "
            f"{math.ceil(floor / 2**20 * 1e4) / 1e4:.4f} MiB or more, or cut features into more blocks "
            "(search.blocks), which makes the first smaller."
        )


def fit(space: Space, order: Sequence[Column], budget_bytes: int) -> Choice:
    """Buy columns in their order while they fit; of the first that does not, the most frequent ids get it.

    Args:
        space: whose columns they are.
        order: each at most once. The first column of the first block of each feature is bought before all others.
        budget_bytes: of the choice.

    Returns:
        A choice of at most `budget_bytes`, and of more than 99 % of them unless all of `order` costs less.

    Raises:
        ConfigError: the budget is below the floor.
    """
    check_budget(space, budget_bytes)
    bought: list[list[list[int]]] = [[[] for _ in own] for own in space.blocks]
    order = _with_first(space, order)
    left = budget_bytes
    for number, each in enumerate(order):
        block = space.blocks[each.feature][each.block]
        if block.size * FLOAT_BYTES > left:
            return _with_part(space, bought, each, left if left > UNSPENT * budget_bytes else 0)
        left -= block.size * FLOAT_BYTES
        bought[each.feature][each.block].append(each.column)
        assert left >= 0 or number < len(space.features)
    return Choice(tuple(_pieces(blocks, columns) for blocks, columns in zip(space.blocks, bought, strict=True)))


def _with_first(space: Space, order: Sequence[Column]) -> list[Column]:
    """`order` with the first column of the first block of each feature in front: id 0 needs a row."""
    first: dict[int, Column] = {}
    for each in order:
        if each.block == 0:
            first.setdefault(each.feature, each)
    for feature in range(len(space.features)):
        first.setdefault(feature, Column(feature, 0, 0))
    in_front = set(first.values())
    return [first[feature] for feature in sorted(first)] + [each for each in order if each not in in_front]


def _with_part(space: Space, bought: list[list[list[int]]], last: Column, left: int) -> Choice:
    """The choice with column `last` for as many of its block's first ids as `left` bytes take."""
    features = []
    for number, (blocks, columns) in enumerate(zip(space.blocks, bought, strict=True)):
        if number != last.feature or left < FLOAT_BYTES:
            features.append(_pieces(blocks, columns))
            continue
        block, rows = blocks[last.block], left // FLOAT_BYTES
        halves = (Block(block.first, rows, 0.0), Block(block.first + rows, block.size - rows, 0.0))
        cut = (*blocks[: last.block], *halves, *blocks[last.block + 1 :])
        own = columns[last.block]
        features.append(_pieces(cut, [*columns[: last.block], [*own, last.column], own, *columns[last.block + 1 :]]))
    return Choice(tuple(features))


def _pieces(blocks: Sequence[Block], columns: Sequence[Sequence[int]]) -> Pieces:
    pairs = zip(blocks, columns, strict=True)
    return tuple(Piece(size=block.size, columns=tuple(sorted(own))) for block, own in pairs)


def by_width(space: Space, wanted: Sequence[Sequence[float]]) -> list[Column]:
    """Columns in the order in which blocks grow when all their widths are these times one growing factor.

    Args:
        space: whose blocks they are.
        wanted: of each feature the relative widths of its blocks, 0 or more; at 0 a block never gets a column.
    """
    jumps = []
    for feature, block in space.block_numbers:
        width = wanted[feature][block]
        for column in range(space.features[feature].embedding_dim if width > 0 else 0):
            # At equal moments small blocks first: more of them get what they want.
            size = space.blocks[feature][block].size
            jumps.append(((column + 1) / width, size, feature, block, column))
    return [Column(feature, block, column) for _, _, feature, block, column in sorted(jumps)]
