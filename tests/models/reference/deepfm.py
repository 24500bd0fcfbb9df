"""`deepfm`: linear part, pairs, MLP."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.deepfm import DeepFMConfig
from tests.models.loops import affine, dot, flat, pairs, perceptron

FORMS: dict[str, ModelConfig] = {
    "deepfm": DeepFMConfig(embedding_dim=4, hidden_units=[16, 8], dropout=0.0),
    "deepfm_without_batch_norm": DeepFMConfig(embedding_dim=4, hidden_units=[8], batch_norm=False, dropout=0.0),
}


def logits(config: DeepFMConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]) -> float:
    num_fields = len(embeddings) // 2
    vectors, weights = embeddings[:num_fields], embeddings[num_fields:]
    total = sum(flat(weights)) + sum(dot(vectors[i], vectors[j]) for i, j in pairs(num_fields))
    if dense:
        total += affine(state, "dense_weights", dense)[0]
    return total + affine(state, "output", perceptron(state, "mlp", flat(vectors) + dense))[0]
