"""`din`: a network weighs each event by the target. Targets come first, time gaps last, as in the world's columns."""

from torch import Tensor

from recsys.models.activations import Activation
from recsys.models.ctr import ModelConfig
from recsys.models.din import DINConfig
from tests.models.loops import affine, flat, joined, perceptron, softmax, weighted_sum

FORMS: dict[str, ModelConfig] = {
    "din": DINConfig(embedding_dim=4, attention_units=[8, 4], attention_dropout=0.0, hidden_units=[16, 8], dropout=0.0),
    "din_of_the_paper": DINConfig(
        embedding_dim=4,
        attention_units=[8],
        attention_activation=Activation.PRELU,
        attention_dropout=0.0,
        softmax=False,
        hidden_units=[8],
        activation=Activation.PRELU,
        batch_norm=False,
        dropout=0.0,
    ),
    "din_with_time": DINConfig(
        embedding_dim=4,
        time_gaps="hist_gap",
        attention_units=[8],
        attention_activation=Activation.RELU,
        attention_dropout=0.0,
        product=True,
        hidden_units=[8],
        activation=Activation.RELU,
        dropout=0.0,
    ),
}


def logits(
    config: DINConfig,
    state: dict[str, Tensor],
    dense: list[float],
    embeddings: list[list[float]],
    sequences: list[list[list[float]]],
) -> float:
    histories = sequences[:-1] if config.time_gaps else sequences
    gaps = sequences[-1] if config.time_gaps else [[] for _ in sequences[0]]
    query, keys = flat(embeddings[: len(histories)]), joined(histories)
    scores = []
    for key, gap in zip(keys, gaps, strict=True):
        differences = [q - k for q, k in zip(query, key, strict=True)]
        products = [q * k for q, k in zip(query, key, strict=True)]
        scores += affine(
            state, "unit.output", perceptron(state, "unit.mlp", query + differences + products + key + gap)
        )
    interest = weighted_sum(softmax(scores) if config.softmax else scores, keys, len(query))
    row = flat(embeddings) + interest
    if config.product:
        row += [q * u for q, u in zip(query, interest, strict=True)]
    return affine(state, "output", perceptron(state, "mlp", row + dense))[0]
