"""DNN: an MLP over all embeddings and numeric columns; the baseline of every CTR model.

Source: the network of Cheng et al., Wide & Deep, DLRS 2016, arXiv:1606.07792, without its wide part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from recsys.core.specs import FeatureSpec
from recsys.models.features import check_at_least, check_dropout, check_units, embedded, total_width
from recsys.models.layers import MLP, linear


@dataclass(frozen=True, kw_only=True)
class DNNConfig:
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
        """Every column, `embedding_dim` wide."""
        return embedded(categorical, self.embedding_dim)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`. Widths may differ between features."""
        return DNN(self, total_width(features, model="dnn"), num_dense)


class DNN(nn.Module):
    """logit = Linear(MLP([embeddings; dense]))."""

    has_dense: Final[bool]

    def __init__(self, config: DNNConfig, embeddings_width: int, num_dense: int) -> None:
        super().__init__()
        self.has_dense = num_dense > 0
        width = embeddings_width + num_dense
        self.mlp = MLP(width, config.hidden_units, batch_norm=config.batch_norm, dropout=config.dropout)
        self.output = linear(config.hidden_units[-1], 1)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, sum of widths)."""
        inputs = torch.cat([embeddings, dense], 1) if self.has_dense else embeddings
        logits: Tensor = self.output(self.mlp(inputs))
        return logits.squeeze(1).float()
