"""`dnn`: an MLP over everything."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.dnn import DNNConfig
from tests.models.loops import affine, flat, perceptron

FORMS: dict[str, ModelConfig] = {
    "dnn": DNNConfig(embedding_dim=4, hidden_units=[16, 8], dropout=0.0),
    "dnn_without_batch_norm": DNNConfig(embedding_dim=4, hidden_units=[8], batch_norm=False, dropout=0.0),
}


def logits(config: DNNConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]) -> float:
    return affine(state, "output", perceptron(state, "mlp", flat(embeddings) + dense))[0]
