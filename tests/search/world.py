"""Features and spaces that tests of searches share."""

from collections.abc import Callable
from pathlib import Path

from recsys.core.specs import Distribution, FeatureSpec, Init, Pooling
from recsys.search.choice import Choice, Piece, Space

INIT = Init(distribution=Distribution.UNIFORM, scale=0.3)
FEATURES = (
    FeatureSpec(name="user", embedding_dim=8, num_embeddings=40, max_length=1, octave_counts=(30, 20, 20, 10, 5, 5)),
    FeatureSpec(name="item", embedding_dim=8, num_embeddings=30, max_length=1, octave_counts=(30, 20, 20, 10, 5)),
    FeatureSpec(name="tags", embedding_dim=8, num_embeddings=20, pooling=Pooling.MEAN, octave_counts=(9, 9, 5, 5, 1)),
    FeatureSpec(name="user__linear", embedding_dim=1, num_embeddings=40, source="user", max_length=1),
)
FULL_BYTES = 4 * (40 * 8 + 30 * 8 + 20 * 8 + 40)
SPACE = Space.of(FEATURES, num_blocks=3, init=INIT)


def choice(**pieces: list[tuple[int, tuple[int, ...]]]) -> Choice:
    """Pieces (size, columns) of some features of `SPACE`; the others are full."""
    own = dict(zip([feature.name for feature in FEATURES], SPACE.full.features, strict=True))
    own |= {name: tuple(Piece(size=size, columns=columns) for size, columns in each) for name, each in pieces.items()}
    return Choice(tuple(own.values()))


class Made(dict[str, Path]):
    """Folders by the name of a search, each made when first asked for."""

    def __init__(self, make: Callable[[str], Path]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: str) -> Path:
        self[key] = self._make(key)
        return self[key]
