"""`mde`: the paper's widths worked out by hand, popularity blocks, their look-ups and bytes."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec
from recsys.embeddings.mde import (
    Block,
    MdeConfig,
    PopularityProjection,
    PopularityRemap,
    legal_width,
    popularity_blocks,
)
from tests.embeddings import dense_reference as reference
from tests.embeddings.met_or_refused import check_budgets, features_of, ranked_counts
from tests.embeddings.test_dense_parity import CHECKS, KINDS

COUNTED = FeatureSpec(name="a", embedding_dim=8, num_embeddings=16, octave_counts=(100, 40, 16, 8))


def specs(*sizes: int) -> list[FeatureSpec]:
    return features_of(sizes, 16, counted=False, linear=False)


def planned(num_floats: int, features: list[FeatureSpec], blocks: int = 1) -> TablePlan:
    return MdeConfig(budget_mib=num_floats * 4 / 2**20, blocks=blocks).plan(features)


def widths(plan: TablePlan) -> list[int]:
    return [table.embedding_dim for table in plan.tables]


@pytest.mark.parametrize(
    ("num_floats", "expected"),
    [
        (11_040, [16, 16, 16]),  # 10 x 16 + 40 x 16 + 640 x 16: alpha = 0
        (11_039, [16, 16, 8]),  # 8 x (640 + 16) = 5248 for the largest
        (1920, [16, 8, 2]),  # 160 + 8 x 56 + 2 x 656, the widths of alpha = 1/2: 16 x (1, 1/2, 1/8)
        (1919, [16, 8, 1]),
        (1264, [16, 8, 1]),  # 160 + 8 x 56 + 656
        (1040, [16, 4, 1]),  # alpha = 1: 16 x (1, 1/4, 1/64)
    ],
)
def test_widths_fall_with_the_power_of_the_size(num_floats: int, expected: list[int]) -> None:
    plan = planned(num_floats, specs(10, 40, 640))
    assert widths(plan) == expected
    assert plan.num_bytes <= num_floats * 4


def test_lambda_falls_where_no_alpha_will_do() -> None:
    assert widths(planned(1039, specs(10, 40, 640))) == [16, 2, 1]
    assert widths(planned(26 + 56 + 656, specs(10, 40, 640))) == [1, 1, 1]
    with pytest.raises(ConfigError, match=f"needs {4 * (26 + 56 + 656):,} bytes"):
        planned(26 + 56 + 656 - 1, specs(10, 40, 640))
    equal = planned(3 * 116 * 4, specs(100, 100, 100))  # no power of a ratio of 1 makes anything narrower
    assert widths(equal) == [4, 4, 4]


def test_widths_find_back_to_their_features() -> None:
    """The published solver sorts features by size; here their order changes nothing."""
    plan = planned(1920, specs(640, 10, 40))
    assert [plan.table(entry.tables[0]).embedding_dim for entry in plan.features] == [2, 16, 8]
    assert [entry.feature.num_embeddings for entry in plan.features] == [640, 10, 40]


def test_projections_are_counted() -> None:
    plan = planned(1920, specs(10, 40, 640))
    assert plan.combiner_bytes == 4 * (8 * 16 + 2 * 16)
    assert plan.num_bytes == 1920 * 4


def test_legal_widths_are_powers_of_two_and_the_whole() -> None:
    assert [legal_width(w, 16) for w in (0.0, 0.7, 1.4, 1.5, 2.0, 5.6, 5.7, 11.3, 11.4, 16.0)] == [
        *(1, 1, 1, 2, 2, 4, 8, 8, 16, 16)
    ]
    assert [legal_width(w, 10) for w in (7.0, 8.9, 9.0, 10.0)] == [8, 8, 10, 10]
    assert [legal_width(w, 1) for w in (0.5, 1.0)] == [1, 1]


def test_blocks_by_hand() -> None:
    # look-ups per id: 1 | 2, 3 | 4 to 7 | 8 to 15 have 100 | 20 | 4 | 1; id 0 joins the most popular
    first, second = popularity_blocks(COUNTED, 2)
    assert (first.size, second.size) == (4, 12)
    assert (first.popularity, second.popularity) == pytest.approx((140 / 164 / 4, 24 / 164 / 12))
    assert [block.size for block in popularity_blocks(COUNTED, 3)] == [2, 2, 12]
    assert [block.size for block in popularity_blocks(COUNTED, 9)] == [2, 2, 4, 8]
    assert popularity_blocks(COUNTED, 1) == [Block(16, 1 / 16)]
    assert popularity_blocks(FeatureSpec(name="a", embedding_dim=8, num_embeddings=9), 4) == [Block(9, 1 / 9)]
    assert popularity_blocks(FeatureSpec(name="a", embedding_dim=8, num_embeddings=1), 4) == [Block(1, 1.0)]


def test_blocks_of_full_width_are_one() -> None:
    # 128 floats in full. alpha above .266 makes the last 8 ids 2 wide: 2 * (8 + 8) floats instead of 64
    plan = planned(100, [COUNTED], blocks=4)
    assert [(table.num_embeddings, table.embedding_dim) for table in plan.tables] == [(8, 8), (8, 2)]
    assert plan.num_bytes == 4 * (64 + 16 + 16)
    # above .411 the 4 before them, too; 2 ids would save nothing, narrower, until they are 1 wide
    plan = planned(90, [COUNTED], blocks=4)
    assert [(table.num_embeddings, table.embedding_dim) for table in plan.tables] == [(4, 8), (4, 2), (8, 2)]
    assert plan.num_bytes == 4 * (32 + 8 + 16 + 16 + 16)
    assert len(planned(128, [COUNTED], blocks=4).tables) == 1


def test_look_ups_outside_the_block_read_row_0() -> None:
    rows = PopularityRemap([2, 3, 1])(torch.tensor([0, 1, 2, 4, 5]))
    assert rows.tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, 2, 0], [0, 0, 0, 0, 0]]


def test_rows_of_other_blocks_get_no_gradient() -> None:
    combiner = PopularityProjection([2, 3], [4, 2], 4)
    rows = [torch.randn(3, 4, requires_grad=True), torch.randn(3, 2, requires_grad=True)]
    combiner(torch.tensor([0, 3, 1]), rows).sum().backward()
    assert rows[0].grad is not None and rows[1].grad is not None
    assert rows[0].grad.any(dim=1).tolist() == [True, False, True]
    assert rows[1].grad.any(dim=1).tolist() == [False, True, False]
    assert not combiner.linear


def test_no_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match="blocks=0"):
        MdeConfig(blocks=0)


@pytest.mark.parametrize("blocks", [1, 3])
def test_budgets(blocks: int) -> None:
    check_budgets(lambda ratio: MdeConfig(compression_ratio=ratio, blocks=blocks))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("blocks", [1, 3])
def test_values_and_gradients_equal_the_dense_reference(blocks: int, kind: str, check: str) -> None:
    max_length, pooling = KINDS[kind]
    sizes = {"user": 90, "type": 40, "one": 1}
    features = [
        FeatureSpec(
            name=name,
            embedding_dim=6,
            num_embeddings=size,
            pooling=pooling,
            max_length=max_length,
            octave_counts=ranked_counts(size),
        )
        for name, size in sizes.items()
    ]
    plan = MdeConfig(compression_ratio=2, blocks=blocks).plan(features)
    assert (len(plan.tables) > 3) == (blocks > 1)
    CHECKS[check](plan, reference.random_bags(sizes, 9, seed=0, max_length=max_length))
