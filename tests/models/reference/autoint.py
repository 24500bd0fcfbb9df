"""`autoint`: self-attention field by field and head by head, the MLP and the linear part."""

import math

from torch import Tensor

from recsys.models.autoint import AutoIntConfig
from recsys.models.ctr import ModelConfig
from tests.models.loops import affine, dot, flat, perceptron

FORMS: dict[str, ModelConfig] = {
    "autoint_plus": AutoIntConfig(
        embedding_dim=4, num_attention_layers=2, attention_dim=6, num_heads=2, hidden_units=[16, 8], dropout=0.0
    ),
    "autoint": AutoIntConfig(
        embedding_dim=4,
        num_attention_layers=3,
        attention_dim=6,
        num_heads=3,
        layer_norm=False,
        scale=False,
        hidden_units=[],
        dropout=0.0,
    ),
    "autoint_wide": AutoIntConfig(
        embedding_dim=4, num_attention_layers=2, attention_dim=4, num_heads=1, wide=True, hidden_units=[], dropout=0.0
    ),
    "autoint_plus_wide_without_residual": AutoIntConfig(
        embedding_dim=4,
        num_attention_layers=2,
        attention_dim=6,
        num_heads=2,
        residual=False,
        layer_norm=False,
        wide=True,
        hidden_units=[8],
        batch_norm=False,
        dropout=0.0,
    ),
}


def normalised(state: dict[str, Tensor], prefix: str, row: list[float]) -> list[float]:
    """Layer normalisation of one field."""
    mean = sum(row) / len(row)
    variance = sum((value - mean) ** 2 for value in row) / len(row)
    scale, shift = state[f"{prefix}.weight"].tolist(), state[f"{prefix}.bias"].tolist()
    return [(value - mean) / math.sqrt(variance + 1e-5) * a + b for value, a, b in zip(row, scale, shift, strict=True)]


def head(config: AutoIntConfig, query: list[float], keys: list[list[float]], values: list[list[float]]) -> list[float]:
    """What one field reads in one head."""
    scale = 1 / math.sqrt(len(query)) if config.scale else 1.0
    powers = [math.exp(scale * dot(query, key)) for key in keys]
    weights = [power / sum(powers) for power in powers]
    return [dot(weights, [value[k] for value in values]) for k in range(len(query))]


def attention(
    config: AutoIntConfig, state: dict[str, Tensor], layer: str, fields: list[list[float]]
) -> list[list[float]]:
    projected = [affine(state, f"{layer}.projections", row) for row in fields]
    width, per_head = config.attention_dim, config.attention_dim // config.num_heads
    outputs = []
    for field, row in zip(fields, projected, strict=True):
        read: list[float] = []
        for start in range(0, width, per_head):
            keys = [other[width + start : width + start + per_head] for other in projected]
            values = [other[2 * width + start : 2 * width + start + per_head] for other in projected]
            read += head(config, row[start : start + per_head], keys, values)
        if config.residual:
            same = affine(state, f"{layer}.residual", field) if f"{layer}.residual.weight" in state else field
            read = [a + b for a, b in zip(read, same, strict=True)]
        if config.layer_norm:
            read = normalised(state, f"{layer}.norm", read)
        outputs.append([max(0.0, value) for value in read])
    return outputs


def logits(config: AutoIntConfig, state: dict[str, Tensor], dense: list[float], embeddings: list[list[float]]) -> float:
    num_fields = len(embeddings) // 2 if config.wide else len(embeddings)
    fields = [*embeddings[:num_fields]]
    if dense:
        learned = state["numeric.vectors"].tolist()
        fields += [[value * v for v in vector] for value, vector in zip(dense, learned, strict=True)]
    attended = fields
    for number in range(config.num_attention_layers):
        attended = attention(config, state, f"attention.{number}", attended)
    total = affine(state, "attention_output", flat(attended))[0]
    if config.hidden_units:
        total += affine(state, "output", perceptron(state, "mlp", flat(fields)))[0]
    if config.wide:
        total += sum(flat(embeddings[num_fields:])) + (affine(state, "dense_weights", dense)[0] if dense else 0.0)
    return total
