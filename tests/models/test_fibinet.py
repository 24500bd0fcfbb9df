"""FiBiNET: rows by hand, counts of BARS, what its matrices and weights do."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.models.fibinet import BilinearPairs, FiBiNETConfig, FieldWeights, Matrices
from tests.models.world import build, columns, num_on_frappe, num_on_movielens

ROW = torch.tensor([[[1.0, 2.0], [3.0, -1.0], [0.0, 4.0]]])  # one row, three fields of width 2


def test_counts_of_bars() -> None:
    # embeddings 53,890 and linear weights 5,389, no bias; fields' weights 10 x 5 twice; one 10 x 10 matrix, through
    # which both kinds of pairs go; MLP over 2 x 45 pairs of 10: 900-400-400-400-1 with biases, batch norm 2 x 3 x 400
    mlp = 900 * 400 + 400 + 2 * (400 * 400 + 400) + 401 + 2400
    assert num_on_frappe(FiBiNETConfig(embedding_dim=10)) == 53_890 + 5_389 + 100 + 100 + mlp == 743_480
    # movielenslatest_x1 weighs 3 fields with 3 / 0.3 = 10 units
    assert num_on_movielens(FiBiNETConfig(embedding_dim=10, reduction_ratio=0.3)) == 1_340_790


@pytest.mark.parametrize(
    ("matrices", "weight", "expected"),
    [
        # one matrix swaps: (2,1)*(3,-1), (2,1)*(0,4), (-1,3)*(0,4)
        (Matrices.FIELD_ALL, [[[0.0, 1.0], [1.0, 0.0]]], [[6.0, -1.0], [0.0, 4.0], [0.0, 12.0]]),
        # field 0 doubles, field 1 swaps
        (
            Matrices.FIELD_EACH,
            [[[2.0, 0.0], [0.0, 2.0]], [[0.0, 1.0], [1.0, 0.0]]],
            [[6.0, -4.0], [0.0, 16.0], [0.0, 12.0]],
        ),
        # row vector times matrix: (1,2) [[1,1],[0,0]] = (1,1); pair (0,2) keeps, pair (1,2) doubles
        (
            Matrices.FIELD_INTERACTION,
            [[[1.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 2.0]]],
            [[3.0, -1.0], [0.0, 8.0], [0.0, -8.0]],
        ),
    ],
)
def test_pairs_by_hand(matrices: Matrices, weight: list[list[list[float]]], expected: list[list[float]]) -> None:
    pairs = BilinearPairs(3, 2, matrices)
    with torch.no_grad():
        pairs.weight.copy_(torch.tensor(weight))
    assert pairs(ROW)[0].tolist() == expected


def test_weights_of_fields_by_hand() -> None:
    weights = FieldWeights(3, 3.0)  # one unit
    with torch.no_grad():
        weights.squeeze.weight.copy_(torch.tensor([[2.0, 1.0, -1.0]]))
        weights.excite.weight.copy_(torch.tensor([[1.0], [-1.0], [0.5]]))
    # means 1.5, 1, 2; unit 3 + 1 - 2 = 2; ReLU, not a sigmoid, after both layers
    assert weights(ROW).tolist() == [[2.0, 0.0, 1.0]]
    assert weights(-ROW).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("matrices", Matrices)
def test_every_matrix_starts_with_xaviers_variance(matrices: Matrices) -> None:
    weight = BilinearPairs(12, 64, matrices).weight
    assert weight.shape[0] == {Matrices.FIELD_ALL: 1, Matrices.FIELD_EACH: 11, Matrices.FIELD_INTERACTION: 66}[matrices]
    assert weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"model\.reduction_ratio=0\.0"):
        FiBiNETConfig(reduction_ratio=0.0)
    with pytest.raises(ConfigError, match="only feature 'f0'"):
        build(FiBiNETConfig(), 3, columns((5,)))
    config = FiBiNETConfig()
    with pytest.raises(ConfigError, match="Keep the order"):
        config.build(config.features(columns())[::-1], 0)
