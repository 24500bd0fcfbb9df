"""Each model's formula, against rows worked out by hand and against a slow reference that shares no code with it."""

import pytest
import torch
from torch import nn

from recsys.core.errors import ConfigError
from recsys.core.specs import Pooling
from recsys.models.layers import MLP, CrossNetV2, Dropout, PairwiseDots, pairwise_sum
from recsys.models.lr import LRConfig
from tests.models.world import (
    FORMS,
    REFERENCES,
    SEQUENTIAL,
    build,
    columns,
    columns_for,
    inputs,
    outputs_of,
    randomised,
    sequences_of,
)

EMBEDDINGS = torch.tensor([[[1.0, 2.0], [3.0, -1.0], [0.0, 4.0]]])  # one row, three features of width 2


def test_pairwise_sum_by_hand() -> None:
    # <e0,e1> = 3 - 2, <e0,e2> = 8, <e1,e2> = -4
    assert pairwise_sum(EMBEDDINGS).tolist() == [5.0]


def test_pairwise_dots_by_hand() -> None:
    assert PairwiseDots(3)(EMBEDDINGS).tolist() == [[1.0, 8.0, -4.0]]


@pytest.mark.parametrize("num_fields", [1, 2, 5])
def test_pairwise_sum_is_the_sum_over_pairs(num_fields: int) -> None:
    embeddings = torch.randn(4, num_fields, 3, dtype=torch.float64)
    expected = torch.zeros(4, dtype=torch.float64)
    for i in range(num_fields):
        for j in range(i + 1, num_fields):
            expected += (embeddings[:, i] * embeddings[:, j]).sum(1)
    torch.testing.assert_close(pairwise_sum(embeddings), expected)


def test_cross_layer_by_hand() -> None:
    net = CrossNetV2(2, 1)
    with torch.no_grad():
        net.get_parameter("layers.0.weight").copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        net.get_parameter("layers.0.bias").copy_(torch.tensor([1.0, -1.0]))
    # W x + b = [1*3 + 2*5 + 1, 5 - 1] = [14, 4]; x0 * that + x = [3*14 + 3, 5*4 + 5]
    assert net(torch.tensor([[3.0, 5.0]])).tolist() == [[45.0, 25.0]]


@pytest.mark.parametrize("num_fields", [1, 2, 3, 6])
@pytest.mark.parametrize("num_dense", [0, 2])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_against_its_reference(name: str, num_dense: int, num_fields: int) -> None:
    config = FORMS[name]
    categorical = columns_for(config, (5, 7, 11, 3, 2, 13)[:num_fields])
    try:
        head = randomised(build(config, num_dense, categorical))
    except ConfigError as error:
        assert num_fields < 3
        pytest.skip(f"needs more features: {error}")
    arguments = inputs(config, num_dense, categorical=categorical)
    outputs = outputs_of(config.features(categorical))
    widths = [spec.embedding_dim for spec in outputs if spec.pooling is not Pooling.NONE]
    for row, logit in enumerate(head(*arguments).tolist()):
        vectors = [vector.tolist() for vector in arguments[1][row].split(widths)]
        histories = [sequences_of(arguments, row)] if type(config) in SEQUENTIAL else []
        expected = REFERENCES[name](config, head.state_dict(), arguments[0][row].tolist(), vectors, *histories)
        assert logit == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("num_dense", [0, 2])
def test_lr_by_hand(num_dense: int) -> None:
    head = build(LRConfig(), num_dense, columns((4, 4)))
    with torch.no_grad():
        head.get_parameter("bias").fill_(0.5)
        if num_dense:
            head.get_parameter("dense_weights.weight").copy_(torch.tensor([[2.0, -1.0]]))
    dense = torch.tensor([[3.0, 4.0]])[:, :num_dense]
    assert head(dense, torch.tensor([[0.25, 1.0]])).tolist() == [1.75 + (2.0 if num_dense else 0.0)]


def test_mlp_layers_stand_in_the_order_of_bars() -> None:
    mlp = MLP(3, [5, 4], batch_norm=True, dropout=0.5)
    assert [type(layer) for layer in mlp.layers] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, Dropout] * 2


def test_mlp_without_batch_norm_and_dropout() -> None:
    assert [type(layer) for layer in MLP(3, [5], batch_norm=False, dropout=0.0).layers] == [nn.Linear, nn.ReLU]
