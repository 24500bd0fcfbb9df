"""`dlrm`: products of all pairs, or the vectors themselves, below an MLP."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.dlrm import DLRMConfig, Interaction
from tests.models.loops import affine, dot, flat, pairs, perceptron

FORMS: dict[str, ModelConfig] = {
    "dlrm_dot": DLRMConfig(embedding_dim=4, bottom_units=[8], hidden_units=[16, 8], dropout=0.0),
    "dlrm_cat": DLRMConfig(
        embedding_dim=4, interaction=Interaction.CAT, bottom_units=[8], hidden_units=[16, 8], dropout=0.0
    ),
}


def logits(config: DLRMConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]) -> float:
    of_dense = [perceptron(state, "bottom", dense)] if dense else []
    if config.interaction is Interaction.CAT:
        read = flat(of_dense + embeddings)
    else:
        vectors = of_dense + embeddings
        read = flat(of_dense) + [dot(vectors[i], vectors[j]) for i, j in pairs(len(vectors))]
    return affine(state, "output", perceptron(state, "top", read))[0]
