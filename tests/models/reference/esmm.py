"""`esmm`: probabilities multiplied along the labels."""

import math

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.esmm import ESMMConfig
from tests.models.loops import affine, flat, perceptron

FORMS: dict[str, ModelConfig] = {
    "esmm": ESMMConfig(embedding_dim=4, tower_units=[8, 5], dropout=0.0),
    "esmm_without_batch_norm": ESMMConfig(embedding_dim=4, tower_units=[8], batch_norm=False, dropout=0.0),
}


def logits(
    config: ESMMConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]], task: int = 0
) -> float:
    row, probability = flat(embeddings) + dense, 1.0
    for i in range(task + 1):
        own = affine(state, f"towers.outputs.{i}", perceptron(state, f"towers.towers.{i}", row))[0]
        probability /= 1 + math.exp(-own)
    return math.log(probability / (1 - probability))
