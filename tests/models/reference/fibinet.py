"""`fibinet`: linear part; products of pairs through matrices, of fields as they are and of weighted fields; MLP."""

from torch import Tensor

from recsys.models.ctr import ModelConfig
from recsys.models.fibinet import FiBiNETConfig, Matrices
from tests.models.loops import affine, dot, flat, pairs, perceptron


def form(matrices: Matrices) -> FiBiNETConfig:
    # Units enough for none of the three fields' weights to be 0 on all rows: no gradient passes there.
    return FiBiNETConfig(embedding_dim=4, matrices=matrices, reduction_ratio=0.25, hidden_units=[16, 8], dropout=0.0)


FORMS: dict[str, ModelConfig] = {
    "fibinet_field_all": form(Matrices.FIELD_ALL),
    "fibinet_field_each": form(Matrices.FIELD_EACH),
    "fibinet_field_interaction": form(Matrices.FIELD_INTERACTION),
    "fibinet_without_batch_norm": FiBiNETConfig(
        embedding_dim=4, reduction_ratio=0.5, hidden_units=[8], batch_norm=False, dropout=0.0
    ),
}


def relu(row: list[float]) -> list[float]:
    return [max(0.0, value) for value in row]


def products(config: FiBiNETConfig, matrices: list[list[list[float]]], vectors: list[list[float]]) -> list[float]:
    """v_i W * v_j for each pair, the matrix chosen anew for each."""
    found = []
    for position, (i, j) in enumerate(pairs(len(vectors))):
        which = {Matrices.FIELD_ALL: 0, Matrices.FIELD_EACH: i, Matrices.FIELD_INTERACTION: position}[config.matrices]
        columns = zip(*matrices[which], strict=True)
        found += [dot(vectors[i], list(column)) * right for column, right in zip(columns, vectors[j], strict=True)]
    return found


def logits(config: FiBiNETConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]) -> float:
    num_fields = len(embeddings) // 2
    vectors, total = embeddings[:num_fields], sum(flat(embeddings[num_fields:]))
    means = [sum(vector) / len(vector) for vector in vectors]
    weights = relu(affine(state, "field_weights.excite", relu(affine(state, "field_weights.squeeze", means))))
    weighted = [[weight * value for value in vector] for weight, vector in zip(weights, vectors, strict=True)]
    matrices = state["pairs.weight"].tolist()
    inputs = products(config, matrices, vectors) + products(config, matrices, weighted) + dense
    if dense:
        total += affine(state, "dense_weights", dense)[0]
    return total + affine(state, "output", perceptron(state, "mlp", inputs))[0]
