"""`min_count`: thresholds worked out by hand, the row of all others, budgets and floors."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.embeddings.method import Identity
from recsys.embeddings.min_count import KeepFirst, MinCountConfig
from tests.embeddings import dense_reference as reference
from tests.embeddings.met_or_refused import check_budgets
from tests.embeddings.test_dense_parity import CHECKS, KINDS, SIZES, features

ROW = 4 * 4  # bytes


def two_features() -> list[FeatureSpec]:
    """Look-ups per id: a1 9, a2 and a3 4, a4 to a6 1; b1 20, b2 and b3 5."""
    return [
        FeatureSpec(name="a", embedding_dim=4, num_embeddings=7, octave_counts=(9, 8, 3)),
        FeatureSpec(name="b", embedding_dim=4, num_embeddings=4, octave_counts=(20, 10)),
    ]


def at_rows(num_rows: int) -> MinCountConfig:
    return MinCountConfig(budget_mib=num_rows * ROW / 2**20)


@pytest.mark.parametrize(
    ("num_rows", "kept"), [(2, [1, 1]), (3, [1, 2]), (4, [2, 2]), (5, [2, 3]), (7, [3, 4]), (10, [6, 4])]
)
def test_rows_go_to_the_most_frequent_ids_of_all_features(num_rows: int, kept: list[int]) -> None:
    plan = at_rows(num_rows).plan(two_features())
    assert [table.num_embeddings for table in plan.tables] == kept
    assert plan.num_bytes == num_rows * ROW


def test_rare_ids_read_the_row_of_unknown_ones() -> None:
    assert KeepFirst(3)(torch.tensor([0, 1, 2, 3, 4, 2**63 - 1])).tolist() == [[0, 1, 2, 0, 0, 0]]


def test_a_feature_that_keeps_all_its_ids_has_a_full_table() -> None:
    plan = at_rows(7).plan(two_features())
    assert [entry.remap.build().__class__ for entry in plan.features] == [KeepFirst, Identity]
    assert all(isinstance(entry.remap.build(), Identity) for entry in MinCountConfig().plan(two_features()).features)


def test_the_floor_is_a_row_for_each_feature() -> None:
    with pytest.raises(ConfigError, match=f"needs {2 * ROW} bytes, above the budget of {ROW} "):
        at_rows(1).plan(two_features())


def test_budgets() -> None:
    check_budgets(lambda ratio: MinCountConfig(compression_ratio=ratio))


def test_hashed_feature_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no vocabulary"):
        MinCountConfig().plan([FeatureSpec(name="ip", embedding_dim=4, num_embeddings=None)])


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_equal_the_dense_reference(kind: str, check: str) -> None:
    plan = MinCountConfig(compression_ratio=3).plan(features(kind, width=6, linear=True))
    CHECKS[check](plan, reference.random_bags(SIZES, 9, seed=0, max_length=KINDS[kind][0]))
