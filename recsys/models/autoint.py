"""AutoInt: fields attend to each other, layer by layer; with an MLP beside it is called AutoInt+.

Source: Song et al., CIKM 2019, arXiv:1810.11921, in the form of FuxiCTR 1.2.2 on, which is behind the numbers of BARS.
It differs from the paper: `attention_dim` is the width of all heads together, input that is as wide already is added
without a matrix of its own, and scale, normalisation (before the last ReLU) and dropout of attention are options. The
authors' code differs from both: ReLU on queries, keys, values and residual too, and normalisation after the last ReLU.
As in the paper, a numeric column is a field: its value times a learned vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.models.features import (
    check_at_least,
    check_dropout,
    check_units,
    embedded,
    equal_width,
    linear_weights,
    without_linear,
)
from recsys.models.layers import MLP, Dropout, NumericVectors, linear


@dataclass(frozen=True, kw_only=True)
class AutoIntConfig:
    """Defaults: the best of BARS for AutoInt+ on frappe_x1, save for the width, which is that of criteo_x4.

    Its best AutoInt there: 6 layers, no layer_norm, no scale, no hidden units, no dropout.
    """

    embedding_dim: int = 16
    num_attention_layers: int = 5
    attention_dim: int = 128  # width of a layer's output, all heads together
    num_heads: int = 4
    residual: bool = True  # a layer's input is added to what was attended to
    layer_norm: bool = True  # layer normalisation before each ReLU of the attention layers
    scale: bool = True  # scores are divided by the root of a head's width
    wide: bool = False  # a linear part beside
    # widths of the MLP's hidden layers: AutoInt+; [] leaves the MLP out: AutoInt
    hidden_units: list[int] = field(default_factory=lambda: [400, 400, 400])
    batch_norm: bool = True  # batch normalisation before each ReLU of the MLP
    dropout: float = 0.1  # share of the attention weights and of the MLP's hidden units that a training step drops

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        check_at_least("model.num_attention_layers", self.num_attention_layers, 1)
        check_at_least("model.attention_dim", self.attention_dim, 1)
        check_at_least("model.num_heads", self.num_heads, 1)
        if self.attention_dim % self.num_heads:
            raise ConfigError(
                f"model.num_heads={self.num_heads} does not divide model.attention_dim={self.attention_dim}: the heads "
                "share that width equally. Set one to a multiple of the other, such as 4 heads of 128."
            )
        if self.hidden_units:
            check_units("model.hidden_units", self.hidden_units)
        check_dropout("model.dropout", self.dropout)

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column `embedding_dim` wide; with a linear part, then every column as a linear weight."""
        return embedded(categorical, self.embedding_dim) + (linear_weights(categorical) if self.wide else [])

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`."""
        vectors = without_linear(features, model="autoint") if self.wide else features
        return AutoInt(self, len(vectors), equal_width(vectors, model="autoint"), num_dense)


class AutoInt(nn.Module):
    """logit = Linear(attention layers over the fields) + Linear(MLP(fields)) + w · dense + sum of the ids' weights."""

    has_mlp: Final[bool]
    has_linear: Final[bool]
    has_dense_weights: Final[bool]

    def __init__(self, config: AutoIntConfig, num_embedded: int, embedding_dim: int, num_dense: int) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.embedded_width = num_embedded * embedding_dim
        self.num_fields = num_embedded + num_dense
        width = self.num_fields * embedding_dim
        self.numeric = NumericVectors(num_dense, embedding_dim)
        widths = [embedding_dim] + [config.attention_dim] * (config.num_attention_layers - 1)
        self.attention = nn.Sequential(*(SelfAttention(config, input_dim) for input_dim in widths))
        self.attention_output = linear(self.num_fields * config.attention_dim, 1)
        self.has_mlp = len(config.hidden_units) > 0
        self.mlp: nn.Module = nn.Identity()
        self.output: nn.Module = nn.Identity()
        if self.has_mlp:
            self.mlp = MLP(width, config.hidden_units, batch_norm=config.batch_norm, dropout=config.dropout)
            self.output = linear(config.hidden_units[-1], 1)
        self.has_linear = config.wide
        self.has_dense_weights = config.wide and num_dense > 0
        self.dense_weights = linear(num_dense, 1, bias=False) if self.has_dense_weights else nn.Identity()

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, F * embedding_dim, + F if wide)."""
        fields = self.numeric(dense, embeddings[:, : self.embedded_width] if self.has_linear else embeddings)
        attended = self.attention(fields.reshape(-1, self.num_fields, self.embedding_dim))
        logits: Tensor = self.attention_output(attended.flatten(1)).squeeze(1)
        if self.has_mlp:
            logits = logits + self.output(self.mlp(fields)).squeeze(1)
        if self.has_linear:
            logits = logits + embeddings[:, self.embedded_width :].sum(1)
        if self.has_dense_weights:
            logits = logits + self.dense_weights(dense).squeeze(1)
        return logits.float()


class SelfAttention(nn.Module):
    """Field i becomes ReLU(LayerNorm(sum over fields j of softmax_j(<q_i, k_j>) v_j, head beside head, + residual))."""

    scale: Final[float]
    num_heads: Final[int]
    head_dim: Final[int]
    has_residual: Final[bool]

    def __init__(self, config: AutoIntConfig, input_dim: int) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.head_dim = config.attention_dim // config.num_heads
        self.scale = self.head_dim**-0.5 if config.scale else 1.0
        self.has_residual = config.residual
        # queries, keys and values in one product; each of the three is drawn as a layer of its own
        self.projections = linear(input_dim, 3 * config.attention_dim, bias=False)
        for part in self.projections.weight.chunk(3):
            nn.init.xavier_normal_(part)
        needs_matrix = config.residual and input_dim != config.attention_dim
        self.residual = linear(input_dim, config.attention_dim, bias=False) if needs_matrix else nn.Identity()
        self.norm = nn.LayerNorm(config.attention_dim) if config.layer_norm else nn.Identity()
        self.dropout = Dropout(config.dropout) if config.dropout > 0 else None

    def forward(self, fields: Tensor) -> Tensor:
        """Map (B, F, input_dim) to (B, F, attention_dim)."""
        projected = self.projections(fields).view(-1, fields.shape[1], 3, self.num_heads, self.head_dim)
        # unbind, not three slices: its gradient is one copy, theirs are three tensors of zeros to fill and to add
        query, key, value = projected.unbind(2)
        outputs = self.attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        outputs = outputs.transpose(1, 2).flatten(2)
        if self.has_residual:
            outputs = outputs + self.residual(fields).to(outputs.dtype)
        return torch.relu(self.norm(outputs))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Scaled dot-product attention of (B, num_heads, F, head_dim) each."""
        # The fused operator leaves dropout to slower ones, which draw their random bits one by one; and on a CPU its
        # gradient takes nearly three times as long in bfloat16 as these products' do.
        if self.training and (self.dropout is not None or query.dtype == torch.bfloat16):
            weights = torch.softmax(self.scale * torch.matmul(query, key.transpose(2, 3)), 3)
            if self.dropout is not None:
                weights = self.dropout(weights)
            return torch.matmul(weights.to(value.dtype), value)
        return scaled_dot_product_attention(query, key, value, scale=self.scale)
