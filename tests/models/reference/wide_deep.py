"""`wide_deep`: linear part and MLP."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.wide_deep import WideDeepConfig
from tests.models.loops import affine, flat, perceptron

FORMS: dict[str, ModelConfig] = {
    "wide_deep": WideDeepConfig(embedding_dim=4, hidden_units=[16, 8], dropout=0.0),
}


def logits(
    config: WideDeepConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]
) -> float:
    num_fields = len(embeddings) // 2
    wide = sum(flat(embeddings[num_fields:]))
    if dense:
        wide += affine(state, "dense_weights", dense)[0]
    deep = perceptron(state, "mlp", flat(embeddings[:num_fields]) + dense)
    return wide + affine(state, "output", deep)[0]
