"""Who is frequent: prefixes of ids, by look-ups per id."""

import itertools
import math

import pytest

from recsys.core.specs import FeatureSpec
from recsys.embeddings.frequency import densities, heads


def spec(name: str, size: int, counts: tuple[int, ...] = ()) -> FeatureSpec:
    return FeatureSpec(name=name, embedding_dim=4, num_embeddings=size, octave_counts=counts)


def test_runs_worked_out_by_hand() -> None:
    # ids 1 | 2, 3 | 4, 5, 6 (the vocabulary ends at 7)
    assert list(densities(spec("a", 7, (9, 8, 3)))) == [(0, 1, math.inf), (1, 2, 9.0), (2, 4, 4.0), (4, 7, 1.0)]
    assert list(densities(spec("a", 1))) == [(0, 1, math.inf)]


def test_the_most_frequent_ids_of_all_features_come_first() -> None:
    features = [spec("a", 7, (9, 8, 3)), spec("b", 4, (20, 10))]
    # id 0 of both, then b1 (20), a1 (9), b2 and b3 (5 each), a2 and a3 (4), a4 to a6 (1)
    assert [heads(features, rows) for rows in (0, 1, 2, 3, 4, 6, 8, 11, 50)] == [
        [0, 0], [1, 0], [1, 1], [1, 2], [2, 2], [2, 4], [4, 4], [7, 4], [7, 4],
    ]  # fmt: skip


@pytest.mark.parametrize("counts", list(itertools.product([0, 1, 5], repeat=3)))
def test_rows_are_given_away_exactly_and_grow_together(counts: tuple[int, ...]) -> None:
    features = [spec("a", 8, counts), spec("b", 5, counts[:2]), spec("c", 3)]
    before = [0, 0, 0]
    for rows in range(20):
        now = heads(features, rows)
        assert sum(now) == min(rows, 16), (rows, now)
        assert all(a <= b for a, b in zip(before, now, strict=True))
        before = now
