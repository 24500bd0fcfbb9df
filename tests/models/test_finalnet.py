"""FinalNet: a layer and the gate by hand, counts of BARS, what two streams answer while training."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.models.finalnet import Blocks, FactorizedInteraction, FieldGate, FinalNetConfig
from tests.models.world import build, inputs, num_over

FRAPPE_ROWS_V2 = (956, 4084, 9, 9, 4, 5, 4, 11, 82, 235)
"""user, item and so on in FuxiCTR 2.0: each column has a row for padding that FuxiCTR 1 had not, 5,399 in all."""

MOVIELENS_ROWS_V2 = (16979, 23744, 49519)
"""90,242 for the same reason."""

TWO = FinalNetConfig(embedding_dim=10)
ONE = FinalNetConfig(embedding_dim=10, blocks=Blocks.ONE, field_gate=False, block1_dropout=0.2)


def test_counts_of_bars_on_frappe() -> None:
    # layers have as many weights as an MLP's of the same width: half of the units multiply the other half
    second_layer = 400 * 400 + 400 + 800  # batch norm included
    one = 53_990 + 100 * 400 + 400 + 800 + second_layer + 401
    assert num_over(ONE, FRAPPE_ROWS_V2) == one == 256_791
    # the gate, 10 x 10 + 10, doubles what the first block reads; the second block has one layer
    block1, block2 = 200 * 400 + 400 + 800 + second_layer + 401, 100 * 400 + 400 + 800 + 401
    assert num_over(TWO, FRAPPE_ROWS_V2) == 53_990 + 110 + block1 + block2 == 338_502


def test_counts_of_bars_on_movielens() -> None:
    one = FinalNetConfig(embedding_dim=10, blocks=Blocks.ONE, field_gate=False, block1_units=[400])
    two = FinalNetConfig(embedding_dim=10, block2_units=[500])
    assert num_over(one, MOVIELENS_ROWS_V2) == 916_021
    assert num_over(two, MOVIELENS_ROWS_V2) == 1_106_234


def test_layer_by_hand() -> None:
    layer = FactorizedInteraction(2, 4)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0]]))
        layer.linear.bias.copy_(torch.tensor([0.0, 1.0, 0.0, -1.0]))
    # linear (3, 5 + 1, 3 + 5, 6 - 1): the first half stays, the second multiplies it
    assert layer(torch.tensor([[3.0, 5.0]])).tolist() == [[3.0, 6.0, 24.0, 30.0]]


def test_gate_by_hand() -> None:
    gate = FieldGate(2, 2)
    row = torch.tensor([[1.0, 2.0, 3.0, -1.0]])
    assert gate(row).tolist() == [[1.0, 2.0, 3.0, -1.0] * 2]  # before training: the embeddings twice
    with torch.no_grad():
        gate.weight.copy_(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
        gate.bias.copy_(torch.tensor([0.0, 10.0]))
    # field 0's gates are field 1, (3, -1); field 1's are 2 (1, 2) + 10
    assert gate(row).tolist() == [[1.0, 2.0, 3.0, -1.0, 3.0, -2.0, 36.0, -14.0]]


def test_two_streams_show_their_logits_while_training_only() -> None:
    config = FinalNetConfig(embedding_dim=4, block1_dropout=0.0, block2_dropout=0.0)
    head, arguments = build(config, 2), inputs(config, 2)
    outputs = head(*arguments)
    assert outputs.shape == (6, 3) and outputs.dtype == torch.float32
    torch.testing.assert_close(outputs[:, 0], outputs[:, 1:].mean(1))
    assert (outputs[:, 1] - outputs[:, 2]).abs().min() > 0
    assert torch.jit.script(head)(*arguments).shape == (6, 3)
    assert head.eval()(*arguments).shape == (6,)


def test_one_stream_answers_logits_in_both_modes() -> None:
    head = build(ONE, 2)
    assert head(*inputs(ONE, 2)).shape == head.eval()(*inputs(ONE, 2)).shape == (6,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block1_units": [400, 5]}, r"model\.block1_units=\[400, 5\]: .* even"),
        ({"block2_units": [3]}, r"model\.block2_units=\[3\]"),
        ({"block2_dropout": -0.1}, r"model\.block2_dropout=-0\.1"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FinalNetConfig(**options)  # type: ignore[arg-type]
