"""`mmoe`: a softmax over experts for each task."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.mmoe import MMoEConfig
from tests.models.loops import affine, flat, perceptron, softmax, weighted_sum

FORMS: dict[str, ModelConfig] = {
    "mmoe": MMoEConfig(embedding_dim=4, num_experts=3, expert_units=[7, 6], tower_units=[5], dropout=0.0),
    "mmoe_without_batch_norm": MMoEConfig(
        embedding_dim=4, num_experts=2, expert_units=[6], tower_units=[5], batch_norm=False, dropout=0.0
    ),
}


def logits(
    config: MMoEConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]], task: int = 0
) -> float:
    row = flat(embeddings) + dense
    experts = [perceptron(state, f"experts.experts.{i}", row) for i in range(config.num_experts)]
    shares = softmax(affine(state, f"gates.{task}.weights", row))
    mixed = weighted_sum(shares, experts, config.expert_units[-1])
    return affine(state, f"towers.outputs.{task}", perceptron(state, f"towers.towers.{task}", mixed))[0]
