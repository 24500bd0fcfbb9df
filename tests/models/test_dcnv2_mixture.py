"""Cross layers of low rank: rows by hand, full rank as a special case, gates, counts."""

import pytest
import torch
from torch import nn

from recsys.core.errors import ConfigError
from recsys.models.cross import Structure
from recsys.models.dcnv2 import DCNv2Config
from recsys.models.dcnv2_mixture import CrossNetMixture, DCNv2MixtureConfig, Subspace
from recsys.models.layers import CrossNetV2
from tests.models.world import num_on_frappe, num_parameters, randomised


def net_of(width: int, **values: int | Subspace) -> nn.Module:
    return randomised(CrossNetMixture(DCNv2MixtureConfig(**values), width))  # type: ignore[arg-type]


def fill(net: nn.Module, name: str, values: list[list[float]] | list[float]) -> None:
    with torch.no_grad():
        net.get_parameter(f"layers.0.{name}").copy_(torch.tensor(values))


def test_low_rank_layer_by_hand() -> None:
    net = net_of(2, num_cross_layers=1, num_experts=1, rank=1, subspace=Subspace.LINEAR)
    fill(net, "down.weight", [[2.0, -1.0]])
    fill(net, "up.weight", [[3.0], [-2.0]])
    fill(net, "up.bias", [1.0, 4.0])
    # V x = 6 - 5 = 1; U 1 + b = [4, 2]; x0 * that + x = [3*4 + 3, 5*2 + 5]
    assert net(torch.tensor([[3.0, 5.0]])).tolist() == [[15.0, 15.0]]


def test_gated_layer_by_hand() -> None:
    net = net_of(2, num_cross_layers=1, num_experts=2, rank=1, subspace=Subspace.LINEAR)
    fill(net, "down.weight", [[1.0, 0.0], [0.0, 1.0]])  # expert 0 reads the first number, expert 1 the second
    fill(net, "up.weight", [[1.0, 0.0], [0.0, 1.0]])  # and writes it
    fill(net, "up.bias", [0.0, 1.0])
    log3 = 1.0986122886681098
    fill(net, "gate.weight", [[0.0, log3], [0.0, 0.0]])  # x = [2, 1] gives scores [log 3, 0]: gates 3/4 and 1/4
    # sum = [3/4 * 2, 1/4 * 1] + b = [1.5, 1.25]; x0 * that + x = [2*1.5 + 2, 1.25 + 1]
    torch.testing.assert_close(net(torch.tensor([[2.0, 1.0]])), torch.tensor([[5.0, 2.25]]))


def test_full_rank_is_reached_with_a_rank_as_large_as_the_width() -> None:
    low = net_of(5, num_cross_layers=2, num_experts=1, rank=5, subspace=Subspace.LINEAR)
    full = CrossNetV2(5, 2)
    with torch.no_grad():
        for layer in range(2):
            of_low, of_full = f"layers.{layer}", full.layers[layer]
            up, down = low.get_parameter(f"{of_low}.up.weight"), low.get_parameter(f"{of_low}.down.weight")
            of_full.get_parameter("weight").copy_(up @ down)
            of_full.get_parameter("bias").copy_(low.get_parameter(f"{of_low}.up.bias"))
    inputs = torch.randn(6, 5)
    torch.testing.assert_close(low(inputs), full(inputs), rtol=1e-4, atol=1e-4)


def test_equal_experts_are_as_good_as_one_whatever_the_gate_says() -> None:
    one = net_of(4, num_cross_layers=1, num_experts=1, rank=3)
    three = net_of(4, num_cross_layers=1, num_experts=3, rank=3)
    with torch.no_grad():
        for name, dim in (("down.weight", 0), ("up.weight", 1), ("core", 0)):
            of_one = one.get_parameter(f"layers.0.{name}")
            three.get_parameter(f"layers.0.{name}").copy_(torch.cat([of_one] * 3, dim))
        three.get_parameter("layers.0.up.bias").copy_(one.get_parameter("layers.0.up.bias"))
    inputs = torch.randn(6, 4)
    torch.testing.assert_close(one(inputs), three(inputs), rtol=1e-5, atol=1e-5)


def test_each_expert_is_drawn_as_a_layer_of_its_own() -> None:
    torch.manual_seed(0)
    layer = CrossNetMixture(DCNv2MixtureConfig(num_cross_layers=1, num_experts=4, rank=50), 450).layers[0]
    expected = (2 / (450 + 50)) ** 0.5
    for name, dim in (("down.weight", 0), ("up.weight", 1)):
        for part in layer.get_parameter(name).chunk(4, dim):
            assert part.std().item() == pytest.approx(expected, rel=0.03)
    assert layer.get_parameter("core").std().item() == pytest.approx((1 / 50) ** 0.5, rel=0.03)


def test_parameter_counts() -> None:
    def cross(**values: int | Subspace) -> int:
        return num_parameters(net_of(100, num_cross_layers=4, **values))

    # a layer: U and V of 100 x 32 each, b; four experts with C and gates
    assert cross(num_experts=1, subspace=Subspace.LINEAR) == 4 * (2 * 3_200 + 100)
    assert cross(num_experts=4) == 4 * (4 * (2 * 3_200 + 1_024 + 100) + 100)
    # all that differs from BARS' 458,391 of full rank, which has 4 x (100 x 100 + 100) in its crosses
    low = DCNv2MixtureConfig(embedding_dim=10, num_experts=1, subspace=Subspace.LINEAR)
    full = DCNv2Config(embedding_dim=10, num_cross_layers=4, batch_norm=True)
    assert num_on_frappe(full) - num_on_frappe(low) == 4 * (10_100 - 6_500)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_experts": 0}, r"model\.num_experts=0"),
        ({"rank": 0}, r"model\.rank=0"),
        ({"num_cross_layers": 0}, r"model\.num_cross_layers=0"),
        ({"structure": Structure.STACKED, "hidden_units": []}, r"model\.hidden_units=\[\]"),
    ],
)
def test_impossible_values(values: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DCNv2MixtureConfig(**values)  # type: ignore[arg-type]
