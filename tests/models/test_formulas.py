"""Each model's formula, against rows worked out by hand and against loops that share no code with it."""

import pytest
import torch
from torch import Tensor, nn

from recsys.models.dcnv2 import DCNv2Config, Structure
from recsys.models.deepfm import DeepFMConfig
from recsys.models.dlrm import DLRMConfig, Interaction
from recsys.models.layers import MLP, CrossNetV2, Dropout, PairwiseDots, pairwise_sum
from recsys.models.lr import LRConfig
from tests.models.world import build, columns, inputs

EMBEDDINGS = torch.tensor([[[1.0, 2.0], [3.0, -1.0], [0.0, 4.0]]])  # one row, three features of width 2


def perceptron(state: dict[str, Tensor], prefix: str, positions: list[int], row: list[float]) -> list[float]:
    """ReLU layers at `positions` of a Sequential, unit by unit in Python."""
    for position in positions:
        weight, bias = state[f"{prefix}.{position}.weight"].tolist(), state[f"{prefix}.{position}.bias"].tolist()
        row = [
            max(0.0, sum(w * x for w, x in zip(ws, row, strict=True)) + b) for ws, b in zip(weight, bias, strict=True)
        ]
    return row


def affine(weight: Tensor, bias: Tensor, row: list[float]) -> float:
    """The single unit of an output layer."""
    return dot(weight[0].tolist(), row) + bias.item()


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def randomised(head: nn.Module) -> nn.Module:
    """`head` in eval mode, with biases that are not zero, so that a lost one shows."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return head.eval()


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


def crosses(state: dict[str, Tensor], num_layers: int, start: list[float]) -> list[float]:
    """x_L of cross layers, number by number."""
    row = list(start)
    for layer in range(num_layers):
        weight, bias = state[f"cross.layers.{layer}.weight"].tolist(), state[f"cross.layers.{layer}.bias"].tolist()
        row = [start[k] * (dot(weight[k], row) + bias[k]) + row[k] for k in range(len(row))]
    return row


@pytest.mark.parametrize("structure", Structure)
@pytest.mark.parametrize("num_dense", [0, 2])
def test_dcnv2_against_loops(structure: Structure, num_dense: int) -> None:
    config = DCNv2Config(
        embedding_dim=2, structure=structure, num_cross_layers=3, hidden_units=[5, 4], batch_norm=False, dropout=0.0
    )
    head = randomised(build(config, num_dense))
    state = head.state_dict()
    dense, embeddings = inputs(config, num_dense)
    for row, logit in enumerate(head(dense, embeddings).tolist()):
        start = embeddings[row].tolist() + dense[row].tolist()
        crossed = crosses(state, 3, start)
        deep = perceptron(state, "mlp.layers", [0, 2], start if structure is Structure.PARALLEL else crossed)
        joined = crossed + deep if structure is Structure.PARALLEL else deep
        assert logit == pytest.approx(affine(state["output.weight"], state["output.bias"], joined), abs=1e-4)


@pytest.mark.parametrize("num_dense", [0, 2])
def test_deepfm_against_loops(num_dense: int) -> None:
    config = DeepFMConfig(embedding_dim=2, hidden_units=[5, 4], batch_norm=False, dropout=0.0)
    head = randomised(build(config, num_dense))
    state = head.state_dict()
    dense, embeddings = inputs(config, num_dense)
    for row, logit in enumerate(head(dense, embeddings).tolist()):
        vectors, weights = embeddings[row, :6].view(3, 2).tolist(), embeddings[row, 6:].tolist()
        expected = sum(weights) + sum(dot(vectors[i], vectors[j]) for i in range(3) for j in range(i + 1, 3))
        if num_dense:
            expected += dot(state["dense_weights.weight"][0].tolist(), dense[row].tolist())
        deep = perceptron(state, "mlp.layers", [0, 2], embeddings[row, :6].tolist() + dense[row].tolist())
        expected += affine(state["output.weight"], state["output.bias"], deep)
        assert logit == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("interaction", Interaction)
@pytest.mark.parametrize("num_dense", [0, 2])
def test_dlrm_against_loops(interaction: Interaction, num_dense: int) -> None:
    config = DLRMConfig(
        embedding_dim=2, interaction=interaction, bottom_units=[3], hidden_units=[5, 4], batch_norm=False, dropout=0.0
    )
    head = randomised(build(config, num_dense))
    state = head.state_dict()
    dense, embeddings = inputs(config, num_dense)
    for row, logit in enumerate(head(dense, embeddings).tolist()):
        vectors = embeddings[row].view(3, 2).tolist()
        read = perceptron(state, "bottom.layers", [0, 2], dense[row].tolist()) if num_dense else []
        if interaction is Interaction.DOT:
            together = ([read] if num_dense else []) + vectors
            read = read + [
                dot(together[i], together[j]) for i in range(len(together)) for j in range(i + 1, len(together))
            ]
        else:
            read = read + embeddings[row].tolist()
        top = perceptron(state, "top.layers", [0, 2], read)
        assert logit == pytest.approx(affine(state["output.weight"], state["output.bias"], top), abs=1e-5)


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
