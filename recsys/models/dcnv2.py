"""DCN V2: explicit crosses of bounded degree beside, or below, an MLP.

Source: Wang et al., DCN V2, WWW 2021, arXiv:2008.13535.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as apply_linear

from recsys.core.specs import FeatureSpec
from recsys.models.features import check_at_least, check_dropout, check_units, embedded, total_width
from recsys.models.layers import MLP, CrossNetV2, linear


class Structure(Enum):
    """How crosses and MLP are joined."""

    PARALLEL = "parallel"  # Linear([x_L; MLP(x_0)])
    STACKED = "stacked"  # Linear(MLP(x_L))


@dataclass(frozen=True, kw_only=True)
class DCNv2Config:
    """Defaults: the best of BARS on criteo_x1, but with the width of criteo_x4 and the 400 units of frappe_x1."""

    embedding_dim: int = 16
    structure: Structure = Structure.PARALLEL
    num_cross_layers: int = 3
    hidden_units: list[int] = field(default_factory=lambda: [400, 400, 400])  # widths of the MLP's hidden layers
    batch_norm: bool = False  # batch normalisation before each ReLU of the MLP
    dropout: float = 0.1  # share of the MLP's hidden units that a training step drops

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        check_at_least("model.num_cross_layers", self.num_cross_layers, 1)
        check_units("model.hidden_units", self.hidden_units)
        check_dropout("model.dropout", self.dropout)

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column, `embedding_dim` wide."""
        return embedded(categorical, self.embedding_dim)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`. Widths may differ between features."""
        width = total_width(features, model="dcnv2")
        return (
            ParallelDCNv2(self, width, num_dense)
            if self.structure is Structure.PARALLEL
            else StackedDCNv2(self, width, num_dense)
        )


class ParallelDCNv2(nn.Module):
    """logit = Linear([x_L; MLP(x_0)]) with x_0 = [embeddings; dense] and x_L its crosses."""

    has_dense: Final[bool]

    def __init__(self, config: DCNv2Config, embeddings_width: int, num_dense: int) -> None:
        super().__init__()
        self.has_dense = num_dense > 0
        self.width = embeddings_width + num_dense
        self.cross = CrossNetV2(self.width, config.num_cross_layers)
        self.mlp = MLP(self.width, config.hidden_units, batch_norm=config.batch_norm, dropout=config.dropout)
        self.output = linear(self.width + config.hidden_units[-1], 1)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, sum of widths)."""
        inputs = torch.cat([embeddings, dense], 1) if self.has_dense else embeddings
        # The output layer is applied in two parts, which spares a copy of both and of their gradients.
        weight = self.output.weight
        crossed = apply_linear(self.cross(inputs), weight[:, : self.width])
        deep = apply_linear(self.mlp(inputs), weight[:, self.width :], self.output.bias)
        return (crossed + deep).squeeze(1).float()


class StackedDCNv2(nn.Module):
    """logit = Linear(MLP(x_L)) with x_L the crosses of x_0 = [embeddings; dense]."""

    has_dense: Final[bool]

    def __init__(self, config: DCNv2Config, embeddings_width: int, num_dense: int) -> None:
        super().__init__()
        self.has_dense = num_dense > 0
        width = embeddings_width + num_dense
        self.cross = CrossNetV2(width, config.num_cross_layers)
        self.mlp = MLP(width, config.hidden_units, batch_norm=config.batch_norm, dropout=config.dropout)
        self.output = linear(config.hidden_units[-1], 1)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, sum of widths)."""
        inputs = torch.cat([embeddings, dense], 1) if self.has_dense else embeddings
        logits: Tensor = self.output(self.mlp(self.cross(inputs)))
        return logits.squeeze(1).float()
