"""`shared_bottom`: an MLP, and behind it one for each task."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.shared_bottom import SharedBottomConfig
from tests.models.loops import affine, flat, perceptron

FORMS: dict[str, ModelConfig] = {
    "shared_bottom": SharedBottomConfig(embedding_dim=4, bottom_units=[9, 6], tower_units=[5], dropout=0.0),
    "shared_bottom_without_batch_norm": SharedBottomConfig(
        embedding_dim=4, bottom_units=[7], tower_units=[5, 3], batch_norm=False, dropout=0.0
    ),
}


def logits(
    config: SharedBottomConfig,
    state: dict[str, Tensor],
    dense: list[float],
    embeddings: list[list[float]],
    task: int = 0,
) -> float:
    hidden = perceptron(state, "bottom", flat(embeddings) + dense)
    return affine(state, f"towers.outputs.{task}", perceptron(state, f"towers.towers.{task}", hidden))[0]
