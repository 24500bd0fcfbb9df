"""`dcnv2_mixture`: crosses of low rank, expert by expert, beside or below an MLP."""

import math

from torch import Tensor

from recsys.models.cross import Structure
from recsys.models.ctr import ModelConfig
from recsys.models.dcnv2_mixture import DCNv2MixtureConfig, Subspace
from tests.models.loops import affine, dot, flat, perceptron

FORMS: dict[str, ModelConfig] = {
    "dcnv2_mixture": DCNv2MixtureConfig(
        embedding_dim=4, num_cross_layers=2, num_experts=3, rank=2, hidden_units=[16, 8], dropout=0.0
    ),
    "dcnv2_mixture_stacked": DCNv2MixtureConfig(
        embedding_dim=4,
        structure=Structure.STACKED,
        num_cross_layers=2,
        num_experts=2,
        rank=3,
        hidden_units=[16, 8],
        batch_norm=False,
        dropout=0.0,
    ),
    "dcnv2_mixture_linear": DCNv2MixtureConfig(
        embedding_dim=4, num_experts=2, rank=3, subspace=Subspace.LINEAR, hidden_units=[8], dropout=0.0
    ),
    "dcnv2_mixture_low_rank": DCNv2MixtureConfig(
        embedding_dim=4, num_experts=1, rank=3, subspace=Subspace.LINEAR, hidden_units=[8], dropout=0.0
    ),
    "dcnv2_mixture_low_rank_tanh": DCNv2MixtureConfig(
        embedding_dim=4, num_experts=1, rank=3, hidden_units=[8], dropout=0.0
    ),
}


def expert(
    config: DCNv2MixtureConfig, state: dict[str, Tensor], layer: str, index: int, row: list[float]
) -> list[float]:
    """U_i h_i(x), eq. 3 and 4 without the bias."""
    part = slice(index * config.rank, (index + 1) * config.rank)
    hidden = [dot(weights, row) for weights in state[f"{layer}.down.weight"][part].tolist()]
    if config.subspace is Subspace.TANH:
        inner = [math.tanh(value) for value in hidden]
        columns = state[f"{layer}.core"][index].T.tolist()
        hidden = [math.tanh(dot(column, inner)) for column in columns]
    return [dot(weights, hidden) for weights in state[f"{layer}.up.weight"][:, part].tolist()]


def gates(config: DCNv2MixtureConfig, state: dict[str, Tensor], layer: str, row: list[float]) -> list[float]:
    if config.num_experts == 1:
        return [1.0]
    powers = [math.exp(score) for score in affine(state, f"{layer}.gate", row)]
    return [power / sum(powers) for power in powers]


def logits(
    config: DCNv2MixtureConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]
) -> float:
    start = flat(embeddings) + dense
    crossed = list(start)
    for number in range(config.num_cross_layers):
        layer = f"cross.layers.{number}"
        bias = state[f"{layer}.up.bias"].tolist()
        mixed = [0.0] * len(start)
        for index, gate in enumerate(gates(config, state, layer, crossed)):
            through = expert(config, state, layer, index, crossed)
            mixed = [mixed[k] + gate * start[k] * (through[k] + bias[k]) for k in range(len(start))]
        crossed = [mixed[k] + crossed[k] for k in range(len(start))]
    if config.structure is Structure.STACKED:
        return affine(state, "output", perceptron(state, "mlp", crossed))[0]
    return affine(state, "output", crossed + perceptron(state, "mlp", start))[0]
