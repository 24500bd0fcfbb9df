"""`xdeepfm`: linear part, the interaction network map by map, MLP."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.xdeepfm import XDeepFMConfig
from tests.models.loops import affine, flat, perceptron

FORMS: dict[str, ModelConfig] = {
    "xdeepfm": XDeepFMConfig(embedding_dim=4, cin_units=[5], hidden_units=[16, 8], dropout=0.0),
    "xdeepfm_deep_cin": XDeepFMConfig(
        embedding_dim=4, cin_units=[3, 5, 2], hidden_units=[8], batch_norm=False, dropout=0.0
    ),
    "xdeepfm_without_mlp": XDeepFMConfig(embedding_dim=4, cin_units=[3, 2], hidden_units=[], dropout=0.0),
}


def interactions(
    state: dict[str, Tensor], layer: str, vectors: list[list[float]], maps: list[list[float]]
) -> list[list[float]]:
    """x^k of eq. 6, map by map; weights in the order (0, 0), (0, 1), … of field and map below."""
    outputs = []
    rows, biases = state[f"{layer}.compress.weight"].tolist(), state[f"{layer}.compress.bias"].tolist()
    for weights, bias in zip(rows, biases, strict=True):
        output = [bias] * len(vectors[0])
        weight = iter(weights)
        for vector in vectors:
            for below in maps:
                of_pair = next(weight)
                output = [o + of_pair * a * b for o, a, b in zip(output, vector, below, strict=True)]
        outputs.append(output)
    return outputs


def logits(config: XDeepFMConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]) -> float:
    num_fields = len(embeddings) // 2
    vectors, weights = embeddings[:num_fields], embeddings[num_fields:]
    pooled: list[float] = []
    maps = vectors
    for layer in [f"layers.{number}" for number in range(len(config.cin_units) - 1)] + ["last"]:
        maps = interactions(state, f"cin.{layer}", vectors, maps)
        pooled += [sum(row) for row in maps]
    total = sum(flat(weights)) + affine(state, "cin.output", pooled)[0]
    if dense:
        total += affine(state, "dense_weights", dense)[0]
    if config.hidden_units:
        total += affine(state, "output", perceptron(state, "mlp", flat(vectors) + dense))[0]
    return total
