"""`dcn`: crosses with weight vectors, layer by layer, beside an MLP."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.dcn import DCNConfig
from tests.models.loops import affine, dot, flat, perceptron

FORMS: dict[str, ModelConfig] = {
    "dcn": DCNConfig(embedding_dim=4, hidden_units=[16, 8], dropout=0.0),
    "dcn_without_mlp": DCNConfig(embedding_dim=4, num_cross_layers=4, hidden_units=[], dropout=0.0),
}


def logits(config: DCNConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]) -> float:
    start = flat(embeddings) + dense
    crossed = list(start)
    for weight, bias in zip(state["cross.weights"].tolist(), state["cross.biases"].tolist(), strict=True):
        product = dot(weight, crossed)
        crossed = [start[k] * product + bias[k] + crossed[k] for k in range(len(start))]
    deep = perceptron(state, "mlp", start) if config.hidden_units else []
    return affine(state, "output", crossed + deep)[0]
