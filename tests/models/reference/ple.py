"""`ple`: level by level, what each task and what all share, from lists of experts; the tasks are those of the state."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.ple import PLEConfig
from tests.models.loops import affine, flat, perceptron, softmax, weighted_sum

FORMS: dict[str, ModelConfig] = {
    "ple": PLEConfig(
        embedding_dim=4,
        num_levels=2,
        num_shared_experts=2,
        num_own_experts=1,
        expert_units=[6],
        tower_units=[5],
        dropout=0.0,
    ),
    "ple_of_one_level": PLEConfig(
        embedding_dim=4,
        num_levels=1,
        num_shared_experts=1,
        num_own_experts=2,
        expert_units=[7, 6],
        tower_units=[5],
        batch_norm=False,
        dropout=0.0,
    ),
}


def logits(
    config: PLEConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]], task: int = 0
) -> float:
    num_tasks = sum(key.startswith("towers.outputs.") and key.endswith("weight") for key in state)
    reads = [flat(embeddings) + dense] * (num_tasks + 1)
    for level in range(config.num_levels):
        reads = level_of(config, state, f"levels.{level}", reads, is_last=level == config.num_levels - 1)
    return affine(state, f"towers.outputs.{task}", perceptron(state, f"towers.towers.{task}", reads[task]))[0]


def level_of(
    config: PLEConfig, state: dict[str, Tensor], name: str, reads: list[list[float]], *, is_last: bool
) -> list[list[float]]:
    counts = [config.num_own_experts] * (len(reads) - 1) + [config.num_shared_experts]
    experts = [
        [perceptron(state, f"{name}.experts.{i}.experts.{k}", read) for k in range(count)]
        for i, (read, count) in enumerate(zip(reads, counts, strict=True))
    ]
    width = config.expert_units[-1]
    given = [
        weighted_sum(softmax(affine(state, f"{name}.gates.{i}.weights", read)), experts[i] + experts[-1], width)
        for i, read in enumerate(reads[:-1])
    ]
    if not is_last:
        everyone = [expert for own in experts for expert in own]
        given.append(weighted_sum(softmax(affine(state, f"{name}.shared_gate.weights", reads[-1])), everyone, width))
    return given
