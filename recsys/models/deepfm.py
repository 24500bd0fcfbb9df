"""DeepFM: linear part, factorisation machine and MLP over the same embeddings, logits added.

Source: Guo et al., IJCAI 2017, arXiv:1703.04247. Numeric columns enter the linear part and the MLP, not the pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

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
from recsys.models.layers import MLP, linear, pairwise_sum


@dataclass(frozen=True, kw_only=True)
class DeepFMConfig:
    """Defaults: the best of BARS on frappe_x1, save for the width, which is that of criteo_x4."""

    embedding_dim: int = 16
    hidden_units: list[int] = field(default_factory=lambda: [400, 400, 400])  # widths of the MLP's hidden layers
    batch_norm: bool = True  # batch normalisation before each ReLU of the MLP
    dropout: float = 0.2  # share of the MLP's hidden units that a training step drops

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        check_units("model.hidden_units", self.hidden_units)
        check_dropout("model.dropout", self.dropout)

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column `embedding_dim` wide, then every column as a linear weight."""
        return embedded(categorical, self.embedding_dim) + linear_weights(categorical)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`."""
        pairs = without_linear(features, model="deepfm")
        return DeepFM(self, len(pairs), equal_width(pairs, model="deepfm"), num_dense)


class DeepFM(nn.Module):
    """logit = sum of the ids' weights + w · dense + sum over pairs of <e_i, e_j> + MLP([embeddings; dense])."""

    has_dense: Final[bool]

    def __init__(self, config: DeepFMConfig, num_fields: int, embedding_dim: int, num_dense: int) -> None:
        super().__init__()
        self.has_dense = num_dense > 0
        self.num_fields = num_fields
        self.embedding_dim = embedding_dim
        self.width = num_fields * embedding_dim
        self.dense_weights = linear(num_dense, 1, bias=False) if num_dense > 0 else nn.Identity()
        self.mlp = MLP(
            self.width + num_dense, config.hidden_units, batch_norm=config.batch_norm, dropout=config.dropout
        )
        self.output = linear(config.hidden_units[-1], 1)  # its bias serves the linear part as well

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, F * embedding_dim + F)."""
        inputs = embeddings[:, : self.width]
        logits = embeddings[:, self.width :].sum(1) + pairwise_sum(inputs.view(-1, self.num_fields, self.embedding_dim))
        if self.has_dense:
            logits = logits + self.dense_weights(dense).squeeze(1)
            inputs = torch.cat([inputs, dense], 1)
        deep: Tensor = self.output(self.mlp(inputs))
        return (logits + deep.squeeze(1)).float()
