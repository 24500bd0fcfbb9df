"""`fm`: linear part and every pair."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.fm import FMConfig
from tests.models.loops import affine, dot, flat, pairs, scaled_rows

FORMS: dict[str, ModelConfig] = {"fm": FMConfig(embedding_dim=4)}


def logits(config: FMConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]) -> float:
    num_fields = len(embeddings) // 2
    total: float = state["linear.bias"].item() + sum(flat(embeddings[num_fields:]))
    if dense:
        total += affine(state, "linear.dense_weights", dense)[0]
    vectors = embeddings[:num_fields] + scaled_rows(state, "numeric.vectors", dense)
    for i, j in pairs(len(vectors)):
        total += dot(vectors[i], vectors[j])
    return total
