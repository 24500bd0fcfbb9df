"""What a search decides: every feature's ids, most frequent first, in pieces of one width each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from recsys.core.specs import FeatureSpec, Init
from recsys.embeddings.mde import popularity_blocks
from recsys.embeddings.method import FLOAT_BYTES, num_ids


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The next `size` ids of a feature and the columns of the embedding that they have; without any, no rows."""

    size: int
    columns: tuple[int, ...]
    shared_rows: int = 0  # full rows that the ids share by a hash; 0: each has its own

    @property
    def num_rows(self) -> int:
        """Rows of the table."""
        return (self.shared_rows or self.size) if self.columns else 0

    @property
    def num_bytes(self) -> int:
        """Bytes of the rows, float32."""
        return self.num_rows * len(self.columns) * FLOAT_BYTES


Pieces = tuple[Piece, ...]


def with_rows(pieces: Pieces) -> list[tuple[int, Piece]]:
    """(first id, piece) of the pieces that have rows."""
    firsts = [sum(piece.size for piece in pieces[:number]) for number in range(len(pieces))]
    return [(first, piece) for first, piece in zip(firsts, pieces, strict=True) if piece.columns]


@dataclass(frozen=True)
class Choice:
    """Pieces of every feature, in order; neighbours with the same columns are one piece.

    Ids in a piece without columns read the row of id 0, out-of-vocabulary, so the first piece has some. A piece whose
    ids share rows is all of its feature.
    """

    features: tuple[Pieces, ...]

    def __post_init__(self) -> None:
        for pieces in self.features:
            assert pieces and pieces[0].columns, "id 0 has no row, and dropped ids read it"
            assert all(piece.size > 0 for piece in pieces)
            assert len(pieces) == 1 or not any(piece.shared_rows for piece in pieces)
        object.__setattr__(self, "features", tuple(_merged(pieces) for pieces in self.features))

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows; those of the plan."""
        return sum(piece.num_bytes for pieces in self.features for piece in pieces)

    def width(self, feature: int) -> float:
        """Numbers that a feature stores, by its ids: the mean width where none shares rows or has none."""
        pieces = self.features[feature]
        return sum(piece.num_bytes for piece in pieces) / FLOAT_BYTES / sum(piece.size for piece in pieces)

    def num_rows(self, feature: int) -> int:
        """How many rows a feature has: as many as ids that have one, but where they share them."""
        return sum(piece.num_rows for piece in self.features[feature])


def _merged(pieces: Pieces) -> Pieces:
    if len(pieces) == 1:
        return pieces
    groups = groupby(pieces, key=lambda piece: piece.columns)
    return tuple(Piece(size=sum(piece.size for piece in group), columns=columns) for columns, group in groups)


@dataclass(frozen=True)
class Block:
    """Neighbouring ids that a search treats alike."""

    first: int  # id
    size: int
    popularity: float  # average share of the feature's training look-ups that one of its ids has


@dataclass(frozen=True)
class Space:
    """Features and the blocks of their ids, each of which may get any columns of the embedding."""

    features: tuple[FeatureSpec, ...]
    blocks: tuple[tuple[Block, ...], ...]
    init: Init

    @staticmethod
    def of(features: Sequence[FeatureSpec], *, num_blocks: int, init: Init) -> "Space":
        """Cut the ids of all features into blocks by frequency.

        Args:
            features: with vocabularies.
            num_blocks: at most so many of each feature; 1 where nothing is known of frequencies.
            init: of all tables.

        Raises:
            ConfigError: a feature has no vocabulary, so nobody knows which of its ids are frequent.
        """
        return Space(tuple(features), tuple(tuple(_blocks(feature, num_blocks)) for feature in features), init)

    @property
    def full(self) -> Choice:
        """All ids with all columns."""
        return Choice(tuple((Piece(size=num_ids(f), columns=tuple(range(f.embedding_dim))),) for f in self.features))

    @property
    def floor_bytes(self) -> int:
        """Bytes of the smallest choice: one column for the first block of each feature."""
        return sum(own[0].size * FLOAT_BYTES for own in self.blocks)

    def cut(self, kept: Sequence[int]) -> "Space":
        """The same space with the blocks of each feature cut after so many of its ids."""
        blocks = tuple(tuple(_cut(own, first)) for own, first in zip(self.blocks, kept, strict=True))
        return Space(self.features, blocks, self.init)

    @property
    def block_numbers(self) -> list[tuple[int, int]]:
        """(feature, block) of all blocks, in order."""
        return [(feature, number) for feature, own in enumerate(self.blocks) for number in range(len(own))]


def _blocks(feature: FeatureSpec, num_blocks: int) -> Iterator[Block]:
    first = 0
    for block in popularity_blocks(feature, num_blocks):
        yield Block(first, block.size, block.popularity)
        first += block.size
    assert first == num_ids(feature)


def _cut(blocks: Sequence[Block], place: int) -> Iterator[Block]:
    for block in blocks:
        inside = place - block.first
        if 0 < inside < block.size:
            yield Block(block.first, inside, block.popularity)
            yield Block(place, block.size - inside, block.popularity)
        else:
            yield block
