"""`fwfm`: one of three linear parts, and every pair weighted."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.fwfm import FwFMConfig, LinearPart
from tests.models.loops import affine, dot, flat, pairs, scaled_rows

FORMS: dict[str, ModelConfig] = {
    f"fwfm_{part.value}": FwFMConfig(embedding_dim=4, linear_part=part) for part in LinearPart
}


def linear_part(
    config: FwFMConfig, state: dict[str, Tensor], dense: list[float], numeric: list[list[float]], ids: list[list[float]]
) -> float:
    if config.linear_part is LinearPart.FIELD_VECTOR:
        return affine(state, "linear.fields", flat(ids + numeric))[0]
    num_fields = len(ids) // 2
    if config.linear_part is LinearPart.WEIGHT:
        total: float = state["linear.lr.bias"].item() + sum(flat(ids[num_fields:]))
        return total + (affine(state, "linear.lr.dense_weights", dense)[0] if dense else 0.0)
    total = state["linear.bias"].item()
    for i in range(num_fields):
        total += dot(ids[i], ids[num_fields + i])
    return total + (affine(state, "linear.numeric", flat(numeric))[0] if dense else 0.0)


def logits(config: FwFMConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]) -> float:
    numeric = scaled_rows(state, "numeric.vectors", dense)
    total = linear_part(config, state, dense, numeric, embeddings)
    halved = config.linear_part is not LinearPart.FIELD_VECTOR
    vectors = embeddings[: len(embeddings) // 2 if halved else len(embeddings)] + numeric
    for weight, (i, j) in zip(state["pairs.weights"].tolist(), pairs(len(vectors)), strict=True):
        total += weight * dot(vectors[i], vectors[j])
    return total
