"""`twin`: the events that match best are summed. Targets come first, time gaps last, as in the world's columns."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.twin import TWINConfig
from tests.models.loops import affine, batch_norm, flat, joined, perceptron, shares_of_best, weighted_sum

FORMS: dict[str, ModelConfig] = {
    "twin": TWINConfig(embedding_dim=4, top_k=2, hidden_units=[8, 4]),
    "twin_without_time": TWINConfig(embedding_dim=4, time_gaps="", top_k=9, hidden_units=[8]),
}


def logits(
    config: TWINConfig,
    state: dict[str, Tensor],
    dense: list[float],
    embeddings: list[list[float]],
    sequences: list[list[list[float]]],
) -> float:
    num_targets = len(sequences) - bool(config.time_gaps)
    query = flat(embeddings[:num_targets])
    now = state["attention.now.weight"].tolist()[0] if config.time_gaps else []
    shares = shares_of_best(query, joined(sequences), now, config.top_k)
    interest = weighted_sum(shares, joined(sequences), config.embedding_dim * len(sequences))
    products = [q * u for q, u in zip(query, interest, strict=False)]
    row = flat(embeddings) + interest + products + dense
    return affine(state, "output", perceptron(state, "mlp", batch_norm(state, "norm", row)))[0]
