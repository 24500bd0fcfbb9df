"""xDeepFM's interaction network: a row by hand, blocks of fields, the last layer's shortcut, published counts."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.models import xdeepfm
from recsys.models.xdeepfm import CIN, CINLayer, XDeepFMConfig
from tests.models.world import num_on_frappe, num_on_movielens, randomised


def test_two_layers_by_hand() -> None:
    cin = CIN(2, [1, 1])
    with torch.no_grad():
        cin.get_parameter("layers.0.compress.weight").copy_(torch.tensor([[0.0, 1.0, 2.0, 0.0]]))
        cin.get_parameter("layers.0.compress.bias").fill_(1.0)
        cin.get_parameter("last.compress.weight").copy_(torch.tensor([[1.0, -1.0]]))
        cin.get_parameter("last.compress.bias").fill_(0.5)
        cin.output.weight.copy_(torch.tensor([[1.0, 10.0]]))
        cin.output.bias.fill_(-3.0)
    # fields [1, 2] and [3, -1]; their product [3, -2]
    # x^1 = 1 * <0, 1> + 2 * <1, 0> + 1 = [3, -2] * 3 + 1 = [10, -5], sum 5
    # x^2 = f_0 x^1 - f_1 x^1 + 0.5 = [10 - 30, -10 - 5] + 0.5 = [-19.5, -14.5], sum -34
    assert cin(torch.tensor([[[1.0, 2.0], [3.0, -1.0]]])).tolist() == [5.0 - 340.0 - 3.0]


@pytest.mark.parametrize("products", [1, 6, 1000])
def test_blocks_of_fields_change_nothing(monkeypatch: pytest.MonkeyPatch, products: int) -> None:
    monkeypatch.setattr(xdeepfm, "PRODUCTS_AT_ONCE", products)
    layer = randomised(CINLayer(5, 3, 4))
    fields, maps = torch.randn(7, 5), torch.randn(7, 3)
    weight = layer.get_parameter("compress.weight").view(4, 5, 3)
    expected = torch.einsum("ni,nj,hij->nh", fields, maps, weight) + layer.get_parameter("compress.bias")
    torch.testing.assert_close(layer(fields, maps), expected, rtol=1e-5, atol=1e-5)


def test_the_last_layers_shortcut_has_its_outputs_and_gradients() -> None:
    layer = randomised(CINLayer(5, 3, 4)).double()
    assert isinstance(layer, CINLayer)
    fields, maps, weights = (torch.randn(*shape, dtype=torch.float64) for shape in ((7, 5), (7, 3), (1, 4)))
    wanted = [fields, maps, weights, *layer.parameters()]
    for tensor in wanted:
        tensor.requires_grad_()
    short, long = layer.weighed(fields, maps, weights), layer(fields, maps) @ weights[0]
    torch.testing.assert_close(short, long)
    for ours, theirs in zip(
        torch.autograd.grad(short.square().sum(), wanted),
        torch.autograd.grad(long.square().sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_parameter_counts_are_those_of_bars() -> None:
    # frappe: 53,890 in tables, 5,389 linear weights; a CIN of 64 maps, 10 x 10 x 64 + 64, read out by 64 + 1; MLP.
    assert num_on_frappe(XDeepFMConfig(embedding_dim=10)) == 53_890 + 5_389 + 6_464 + 65 + 364_001 == 429_809
    # BARS' model CIN: two layers more, 10 x 64 x 64 + 64 each
    three = [64, 64, 64]
    config = XDeepFMConfig(embedding_dim=10, cin_units=three, hidden_units=[])
    assert num_on_frappe(config) == 53_890 + 5_389 + 6_464 + 2 * 41_024 + 193 == 147_984
    config = XDeepFMConfig(embedding_dim=10, cin_units=three, batch_norm=False)
    assert num_on_movielens(config) == 1_351_767


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cin_units": []}, r"model\.cin_units=\[\]"),
        ({"cin_units": [64, 0]}, r"model\.cin_units=\[64, 0\]"),
        ({"hidden_units": [-1]}, r"model\.hidden_units=\[-1\]"),
        ({"dropout": -0.1}, r"model\.dropout=-0\.1"),
    ],
)
def test_impossible_values(values: dict[str, list[int]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        XDeepFMConfig(**values)  # type: ignore[arg-type]
