"""`dare`: one table finds events, another is summed. Columns in the order of the world's."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.dare import DAREConfig
from tests.models.loops import affine, batch_norm, flat, joined, perceptron, shares_of_best, weighted_sum

FORMS: dict[str, ModelConfig] = {
    "dare": DAREConfig(embedding_dim=4, attention_dim=2, top_k=2, hidden_units=[8, 4]),
    "dare_without_time": DAREConfig(embedding_dim=4, attention_dim=4, time_gaps="", top_k=9, hidden_units=[8]),
}


def logits(
    config: DAREConfig,
    state: dict[str, Tensor],
    dense: list[float],
    embeddings: list[list[float]],
    sequences: list[list[list[float]]],
) -> float:
    half = len(sequences) // 2
    num_targets = half - bool(config.time_gaps)
    now = state["attention.now.weight"].tolist()[0] if config.time_gaps else []
    shares = shares_of_best(flat(embeddings[:num_targets]), joined(sequences[:half]), now, config.top_k)
    interest = weighted_sum(shares, joined(sequences[half:]), config.embedding_dim * half)
    read = embeddings[num_targets:]
    products = [q * u for q, u in zip(flat(read[:num_targets]), interest, strict=False)]
    row = flat(read) + interest + products + dense
    return affine(state, "output", perceptron(state, "mlp", batch_norm(state, "norm", row)))[0]
