"""`dcnv2`: crosses beside or below an MLP."""

from torch import Tensor

from recsys.models.cross import Structure
from recsys.models.ctr import ModelConfig
from recsys.models.dcnv2 import DCNv2Config
from tests.models.loops import affine, flat, perceptron

FORMS: dict[str, ModelConfig] = {
    "dcnv2_parallel": DCNv2Config(embedding_dim=4, hidden_units=[16, 8], batch_norm=True, dropout=0.0),
    "dcnv2_stacked": DCNv2Config(embedding_dim=4, structure=Structure.STACKED, hidden_units=[16, 8], dropout=0.0),
}


def logits(config: DCNv2Config, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]) -> float:
    start = flat(embeddings) + dense
    crossed = list(start)
    for layer in range(config.num_cross_layers):
        through = affine(state, f"cross.layers.{layer}", crossed)
        crossed = [start[k] * through[k] + crossed[k] for k in range(len(start))]
    if config.structure is Structure.STACKED:
        return affine(state, "output", perceptron(state, "mlp", crossed))[0]
    return affine(state, "output", crossed + perceptron(state, "mlp", start))[0]
