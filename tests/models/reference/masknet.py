"""`masknet`: blocks that mask their input, in a row or side by side."""

import math

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.masknet import MaskNetConfig, Structure
from tests.models.loops import affine, flat, perceptron

FORMS: dict[str, ModelConfig] = {
    "masknet_parallel": MaskNetConfig(embedding_dim=4, num_blocks=2, block_units=6, hidden_units=[8, 4], dropout=0.0),
    "masknet_serial": MaskNetConfig(
        embedding_dim=4, structure=Structure.SERIAL, hidden_units=[8, 6], mask_ratio=0.5, dropout=0.0
    ),
    "masknet_parallel_normed": MaskNetConfig(
        embedding_dim=4, num_blocks=3, block_units=5, hidden_units=[8], embedding_norm=True, dropout=0.0
    ),
    "masknet_serial_normed": MaskNetConfig(
        embedding_dim=4, structure=Structure.SERIAL, hidden_units=[8, 6], embedding_norm=True, dropout=0.0
    ),
}


def normalised(row: list[float], scales: list[float], shifts: list[float]) -> list[float]:
    """Layer normalisation."""
    mean = sum(row) / len(row)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in row) / len(row) + 1e-5)
    return [(x - mean) / deviation * scale + shift for x, scale, shift in zip(row, scales, shifts, strict=True)]


def block(state: dict[str, Tensor], prefix: str, row: list[float], inputs: list[float]) -> list[float]:
    mask = affine(state, f"{prefix}.projection", [max(0.0, x) for x in affine(state, f"{prefix}.aggregation", row)])
    hidden = affine(state, f"{prefix}.hidden", [m * x for m, x in zip(mask, inputs, strict=True)])
    scales, shifts = state[f"{prefix}.norm.weight"].tolist(), state[f"{prefix}.norm.bias"].tolist()
    return [max(0.0, x) for x in normalised(hidden, scales, shifts)]


def logits(config: MaskNetConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]) -> float:
    row, vectors = flat(embeddings) + dense, embeddings
    if config.embedding_norm:
        norms = zip(state["norm.weight"].tolist(), state["norm.bias"].tolist(), strict=True)
        vectors = [normalised(vector, *norm) for vector, norm in zip(embeddings, norms, strict=True)]
    hidden = flat(vectors) + dense
    if config.structure is Structure.SERIAL:
        for number in range(len(config.hidden_units)):
            hidden = block(state, f"blocks.{number}", row, hidden)
    else:
        answers = [block(state, f"blocks.{number}", row, hidden) for number in range(config.num_blocks)]
        hidden = perceptron(state, "mlp", flat(answers))
    return affine(state, "output", hidden)[0]
