"""`wide_deep`: counts of BARS, a row by hand, widths that differ."""

from dataclasses import replace

import torch

from recsys.models.wide_deep import WideDeepConfig
from tests.models.world import build, columns, num_on_frappe, num_on_movielens

ONE = WideDeepConfig(embedding_dim=1, hidden_units=[2], batch_norm=False, dropout=0.0)


def test_parameter_counts_are_those_of_bars() -> None:
    # tables 53,890, weights 5,389, MLP 364,001; the linear part has no bias beside the output layer's
    assert num_on_frappe(WideDeepConfig(embedding_dim=10)) == 423_280
    assert num_on_movielens(WideDeepConfig(embedding_dim=10)) == 1_328_630


def test_a_row_by_hand() -> None:
    head = build(ONE, 1, columns((5,)))
    with torch.no_grad():
        head.get_parameter("mlp.layers.0.weight").copy_(torch.tensor([[1.0, 2.0], [-1.0, 1.0]]))
        head.get_parameter("mlp.layers.0.bias").copy_(torch.tensor([1.0, -5.0]))
        head.get_parameter("output.weight").copy_(torch.tensor([[2.0, 3.0]]))
        head.get_parameter("output.bias").fill_(0.25)
        head.get_parameter("dense_weights.weight").fill_(10.0)
    # embedding 3, its weight 100, number 4: ReLU [3 + 8 + 1, -3 + 4 - 5] = [12, 0]; wide 100 + 10 * 4
    assert head(torch.tensor([[4.0]]), torch.tensor([[3.0, 100.0]])).tolist() == [24.25 + 140.0]


def test_embeddings_of_any_width_beside_weights() -> None:
    features = ONE.features(columns((5, 7)))
    head = ONE.build([replace(features[0], embedding_dim=6), *features[1:]], 0)
    assert head.eval()(torch.empty(3, 0), torch.randn(3, 6 + 1 + 2)).shape == (3,)
