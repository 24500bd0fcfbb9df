"""`lr`: one weight an id."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.lr import LRConfig
from tests.models.loops import affine

FORMS: dict[str, ModelConfig] = {"lr": LRConfig()}


def logits(config: LRConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]) -> float:
    total: float = state["bias"].item()
    for (weight,) in embeddings:
        total += weight
    return total + (affine(state, "dense_weights", dense)[0] if dense else 0.0)
