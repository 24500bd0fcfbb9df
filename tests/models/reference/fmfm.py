"""`fmfm`: linear part, and every pair through its own vector or matrix."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.fmfm import FmFMConfig, Interaction
from tests.models.loops import affine, flat, pairs, scaled_rows

FORMS: dict[str, ModelConfig] = {
    f"fmfm_{interaction.value}": FmFMConfig(embedding_dim=4, interaction=interaction) for interaction in Interaction
}


def through_matrices(weights: list[float], vectors: list[list[float]]) -> float:
    """Weights lie by field i, then its dimension k, then every later field j, then its dimension m."""
    total, remaining = 0.0, iter(weights)
    for i, left in enumerate(vectors):
        for value in left:
            for right in vectors[i + 1 :]:
                for other in right:
                    total += value * next(remaining) * other
    assert next(remaining, None) is None
    return total


def through_vectors(weights: list[list[float]], vectors: list[list[float]]) -> float:
    total = 0.0
    for pair, (i, j) in enumerate(pairs(len(vectors))):
        for k in range(len(vectors[i])):
            total += weights[k][pair] * vectors[i][k] * vectors[j][k]
    return total


def logits(config: FmFMConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]) -> float:
    num_fields = len(embeddings) // 2
    total: float = state["linear.bias"].item() + sum(flat(embeddings[num_fields:]))
    if dense:
        total += affine(state, "linear.dense_weights", dense)[0]
    vectors = embeddings[:num_fields] + scaled_rows(state, "numeric.vectors", dense)
    weights = state["pairs.weights"].tolist()
    through = through_matrices if config.interaction is Interaction.MATRIX else through_vectors
    return total + through(weights, vectors)
