"""DCN's cross layers: a row by hand, the closed form against the layers it replaces, published counts."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.models.dcn import CrossNet, DCNConfig
from tests.models.world import num_on_frappe, num_on_movielens, randomised


def test_two_cross_layers_by_hand() -> None:
    net = CrossNet(2, 2)
    with torch.no_grad():
        net.weights.copy_(torch.tensor([[1.0, -1.0], [0.5, 2.0]]))
        net.biases.copy_(torch.tensor([[1.0, 0.0], [0.0, -3.0]]))
    # x0 = [3, 5]: w0·x0 = -2, x1 = [3*-2 + 1 + 3, 5*-2 + 5] = [-2, -5]
    # w1·x1 = -11, x2 = [3*-11 - 2, 5*-11 - 3 - 5] = [-35, -63]
    assert net(torch.tensor([[3.0, 5.0]])).tolist() == [[-35.0, -63.0]]


@pytest.mark.parametrize("num_layers", [1, 2, 6])
def test_closed_form_has_the_layers_outputs_and_gradients(num_layers: int) -> None:
    net = randomised(CrossNet(7, num_layers)).double()
    weights, biases = net.get_parameter("weights"), net.get_parameter("biases")
    inputs = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    crossed = inputs
    for layer in range(num_layers):
        crossed = inputs * (crossed @ weights[layer]).unsqueeze(1) + biases[layer] + crossed
    outputs = net(inputs)
    torch.testing.assert_close(outputs, crossed)
    wanted = [inputs, weights, biases]
    for ours, theirs in zip(
        torch.autograd.grad(outputs.square().sum(), wanted),
        torch.autograd.grad(crossed.square().sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_initial_weights_are_those_of_a_layer_to_one_unit() -> None:
    net = CrossNet(4000, 3)
    assert net.weights.std().item() == pytest.approx((2 / 4001) ** 0.5, rel=0.05)
    assert not net.biases.any()


def test_parameter_counts_are_those_of_bars() -> None:
    # Tables, 2 D a cross layer, and with D = 100 (frappe) or 30: MLP with batch normalisation, D + 400 weights, a bias.
    assert num_on_frappe(DCNConfig(embedding_dim=10)) == 418_591
    assert num_on_movielens(DCNConfig(embedding_dim=10, num_cross_layers=4)) == 1_238_661
    # BARS' model CrossNet: 53,890 in tables, 6 x 200, 101.
    assert num_on_frappe(DCNConfig(embedding_dim=10, num_cross_layers=6, hidden_units=[])) == 55_191


def test_an_empty_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.hidden_units=\[400, 0\]"):
        DCNConfig(hidden_units=[400, 0])
    with pytest.raises(ConfigError, match=r"model\.num_cross_layers=0"):
        DCNConfig(num_cross_layers=0)
