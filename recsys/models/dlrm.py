"""DLRM: numeric columns become one more embedding, all pairs are multiplied, an MLP reads the products.

Source: Naumov et al., arXiv:1906.00091.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import torch
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.models.features import check_at_least, check_dropout, check_units, embedded, equal_width, total_width
from recsys.models.layers import MLP, PairwiseDots, linear


class Interaction(Enum):
    """What the top MLP reads."""

    DOT = "dot"  # [dense vector; dot product of each pair of embeddings and dense vector]
    CAT = "cat"  # [dense vector; embeddings]: the form of BARS' frappe_x1 and movielenslatest_x1 numbers


@dataclass(frozen=True, kw_only=True)
class DLRMConfig:
    """Defaults: the best of BARS on criteo_x1, but with the width of criteo_x4.

    The bottom MLP, 512-256-64-d, is that of Zhang et al., VLDB 2024, arXiv:2311.15578.
    """

    embedding_dim: int = 16
    interaction: Interaction = Interaction.DOT
    # widths of the bottom MLP's layers before the last, which is embedding_dim wide; unused without numeric columns
    bottom_units: list[int] = field(default_factory=lambda: [512, 256, 64])
    hidden_units: list[int] = field(default_factory=lambda: [400, 400, 400])  # widths of the top MLP's hidden layers
    batch_norm: bool = True  # batch normalisation before each ReLU of both MLPs
    dropout: float = 0.2  # share of the top MLP's hidden units that a training step drops

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        check_units("model.bottom_units", self.bottom_units)
        check_units("model.hidden_units", self.hidden_units)
        check_dropout("model.dropout", self.dropout)

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column, `embedding_dim` wide."""
        return embedded(categorical, self.embedding_dim)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`. Only CAT takes widths that differ between features."""
        if self.interaction is Interaction.CAT:
            return CatDLRM(self, total_width(features, model="dlrm"), num_dense)
        embedding_dim = equal_width(features, model="dlrm")
        if len(features) == 1 and num_dense == 0:
            raise ConfigError(
                f"model dlrm got only feature {features[0].name!r} and no numeric column, but model.interaction=dot "
                "multiplies pairs. Add a column, or set model.interaction=cat."
            )
        return DotDLRM(self, len(features), embedding_dim, num_dense)


def bottom_mlp(config: DLRMConfig, num_dense: int, embedding_dim: int) -> nn.Module:
    """The MLP from (B, num_dense) to (B, embedding_dim); nothing where there are no numeric columns."""
    if num_dense == 0:
        return nn.Identity()
    return MLP(num_dense, [*config.bottom_units, embedding_dim], batch_norm=config.batch_norm, dropout=0.0)


class DotDLRM(nn.Module):
    """logit = Linear(MLP([v; <a, b> for each pair of vectors])); vectors: v = bottom(dense) and the embeddings."""

    has_dense: Final[bool]

    def __init__(self, config: DLRMConfig, num_fields: int, embedding_dim: int, num_dense: int) -> None:
        super().__init__()
        self.has_dense = num_dense > 0
        self.num_vectors = num_fields + int(self.has_dense)
        self.embedding_dim = embedding_dim
        self.bottom = bottom_mlp(config, num_dense, embedding_dim)
        self.dots = PairwiseDots(self.num_vectors)
        width = self.dots.num_pairs + embedding_dim * int(self.has_dense)
        self.top = MLP(width, config.hidden_units, batch_norm=config.batch_norm, dropout=config.dropout)
        self.output = linear(config.hidden_units[-1], 1)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, F * embedding_dim)."""
        if self.has_dense:
            vector = self.bottom(dense)
            vectors = torch.cat([vector, embeddings], 1).view(-1, self.num_vectors, self.embedding_dim)
            inputs = torch.cat([vector, self.dots(vectors)], 1)
        else:
            inputs = self.dots(embeddings.view(-1, self.num_vectors, self.embedding_dim))
        logits: Tensor = self.output(self.top(inputs))
        return logits.squeeze(1).float()


class CatDLRM(nn.Module):
    """logit = Linear(MLP([v; embeddings])) with v = bottom(dense); without numeric columns this is the plain DNN."""

    has_dense: Final[bool]

    def __init__(self, config: DLRMConfig, embeddings_width: int, num_dense: int) -> None:
        super().__init__()
        self.has_dense = num_dense > 0
        self.bottom = bottom_mlp(config, num_dense, config.embedding_dim)
        width = embeddings_width + config.embedding_dim * int(self.has_dense)
        self.top = MLP(width, config.hidden_units, batch_norm=config.batch_norm, dropout=config.dropout)
        self.output = linear(config.hidden_units[-1], 1)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, sum of widths)."""
        inputs = torch.cat([self.bottom(dense), embeddings], 1) if self.has_dense else embeddings
        logits: Tensor = self.output(self.top(inputs))
        return logits.squeeze(1).float()
