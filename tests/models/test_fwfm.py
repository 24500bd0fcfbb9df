"""`fwfm`: a row by hand in each form, counts of BARS, FM as a special case."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.models.fm import FMConfig
from recsys.models.fwfm import FwFMConfig, LinearPart
from tests.models.world import build, columns, inputs, num_on_frappe, num_on_movielens

ROW = [1.0, 2.0, 3.0, -1.0, 0.0, 4.0]  # <v0, v1> = 1, <v0, v2> = 8, <v1, v2> = -4
PAIRS = [2.0, 0.5, -1.0]  # of (0, 1), (0, 2), (1, 2): their weighted sum is 2 + 4 + 4


def test_parameter_counts() -> None:
    # BARS' best runs have a second vector an id: 2 x 53,890 numbers, 45 pairs, a bias
    assert num_on_frappe(FwFMConfig(embedding_dim=10)) == 107_826
    assert num_on_movielens(FwFMConfig(embedding_dim=10)) == 1_804_784
    # not published: a number an id, or ten a field, in place of the second vectors
    assert num_on_frappe(FwFMConfig(embedding_dim=10, linear_part=LinearPart.WEIGHT)) == 53_890 + 5_389 + 45 + 1
    assert num_on_frappe(FwFMConfig(embedding_dim=10, linear_part=LinearPart.FIELD_VECTOR)) == 53_890 + 100 + 45 + 1


@pytest.mark.parametrize(
    ("part", "extra", "of_linear"),
    [
        (LinearPart.WEIGHT, [10.0, 20.0, 30.0], 60.0),
        (LinearPart.ID_VECTOR, [1.0, 1.0, 2.0, 0.0, 5.0, 3.0], 3.0 + 6.0 + 12.0),
        (LinearPart.FIELD_VECTOR, [], 3.0 + 6.0 + 12.0),
    ],
)
def test_a_row_by_hand(part: LinearPart, extra: list[float], of_linear: float) -> None:
    head = build(FwFMConfig(embedding_dim=2, linear_part=part), 0)
    with torch.no_grad():
        head.get_parameter("pairs.weights").copy_(torch.tensor(PAIRS))
        if part is LinearPart.FIELD_VECTOR:
            head.get_parameter("linear.fields.weight").copy_(torch.tensor([[1.0, 1.0, 2.0, 0.0, 5.0, 3.0]]))
    assert head(torch.empty(1, 0), torch.tensor([ROW + extra])).tolist() == [of_linear + 10.0]


def test_equal_weights_make_it_a_factorisation_machine() -> None:
    fwfm, fm = FwFMConfig(embedding_dim=4, linear_part=LinearPart.WEIGHT), FMConfig(embedding_dim=4)
    head, twin = build(fwfm, 2), build(fm, 2)
    with torch.no_grad():
        head.get_parameter("pairs.weights").fill_(1.0)
        head.get_parameter("numeric.vectors").copy_(twin.get_parameter("numeric.vectors"))
        head.get_parameter("linear.lr.dense_weights.weight").copy_(twin.get_parameter("linear.dense_weights.weight"))
    torch.testing.assert_close(head(*inputs(fwfm, 2)), twin(*inputs(fm, 2)), rtol=1e-5, atol=1e-5)


def test_second_vectors_are_features_of_their_own_names() -> None:
    features = FwFMConfig(embedding_dim=8).features(columns((5, 7)))
    assert [(spec.name, spec.source, spec.embedding_dim) for spec in features] == [
        ("f0", "f0", 8),
        ("f1", "f1", 8),
        ("f0__linear", "f0", 8),
        ("f1__linear", "f1", 8),
    ]


def test_refuses_another_order() -> None:
    config = FwFMConfig()
    with pytest.raises(ConfigError, match="Keep the order"):
        config.build(config.features(columns())[::-1], 0)


def test_pair_weights_start_as_a_layer_from_all_pairs_to_one_unit() -> None:
    weights = build(FwFMConfig(embedding_dim=1), 97).get_parameter("pairs.weights")  # 100 fields
    assert weights.numel() == 4950
    assert weights.std().item() == pytest.approx((2 / 4951) ** 0.5, rel=0.05)
