"""FiBiNET: fields weighted by importance, all pairs multiplied through learned matrices, an MLP over the products.

Source: Huang et al., RecSys 2019, arXiv:1905.09433. Numeric columns enter the linear part and the MLP, not the pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import torch
from torch import Tensor, nn

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
from recsys.models.layers import MLP, linear


class Matrices(Enum):
    """Which matrix W stands between the two fields of a pair, v_i W * v_j."""

    FIELD_ALL = "field_all"  # one for all pairs
    FIELD_EACH = "field_each"  # one for each left field i; the last field is never left, so it has none
    FIELD_INTERACTION = "field_interaction"  # one for each pair


@dataclass(frozen=True, kw_only=True)
class FiBiNETConfig:
    """Defaults: the best of BARS on frappe_x1, save for the width, which is that of criteo_x4."""

    embedding_dim: int = 16
    matrices: Matrices = Matrices.FIELD_ALL
    reduction_ratio: float = 2.0  # fields per hidden unit of the network that weighs fields; below 1: more units
    hidden_units: list[int] = field(default_factory=lambda: [400, 400, 400])  # widths of the MLP's hidden layers
    batch_norm: bool = True  # batch normalisation before each ReLU of the MLP
    dropout: float = 0.3  # share of the MLP's hidden units that a training step drops

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        check_units("model.hidden_units", self.hidden_units)
        check_dropout("model.dropout", self.dropout)
        if not self.reduction_ratio > 0:
            raise ConfigError(
                f"model.reduction_ratio={self.reduction_ratio}: fields are divided by it, so it must be above 0."
            )

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column `embedding_dim` wide, then every column as a linear weight."""
        return embedded(categorical, self.embedding_dim) + linear_weights(categorical)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`. Two features or more: the model reads nothing but pairs."""
        vectors = without_linear(features, model="fibinet")
        embedding_dim = equal_width(vectors, model="fibinet")
        if len(vectors) == 1:
            raise ConfigError(
                f"model fibinet got only feature {vectors[0].name!r}, but it multiplies pairs. Add a categorical "
                "column, or take a model that reads single embeddings, such as dcnv2."
            )
        return FiBiNET(self, len(vectors), embedding_dim, num_dense)


class FieldWeights(nn.Module):
    """SENET: one weight a field, ReLU(W_2 ReLU(W_1 z)) with z the fields' means (the paper's SENET layer).

    ReLU twice and no biases, as in FuxiCTR; many ports end in a sigmoid. A field that no hidden unit raises has weight
    0 on every row and learns nothing here: with few fields, take a `reduction_ratio` below 1.
    """

    def __init__(self, num_fields: int, reduction_ratio: float) -> None:
        super().__init__()
        num_units = max(1, int(num_fields / reduction_ratio))
        self.squeeze = linear(num_fields, num_units, bias=False)
        self.excite = linear(num_units, num_fields, bias=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map (B, F, d) to weights (B, F), 0 or more."""
        weights = torch.relu(self.excite(torch.relu(self.squeeze(embeddings.mean(2)))))
        return weights.to(embeddings.dtype)


class BilinearPairs(nn.Module):
    """v_i W * v_j for each pair i < j of F vectors, `*` by element (the paper's Bilinear-Interaction layer)."""

    by_field: Final[bool]
    by_pair: Final[bool]
    first: Tensor
    second: Tensor

    def __init__(self, num_fields: int, embedding_dim: int, matrices: Matrices) -> None:
        super().__init__()
        first, second = torch.triu_indices(num_fields, num_fields, offset=1)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)
        self.num_pairs = first.numel()
        self.by_field = matrices is Matrices.FIELD_EACH
        self.by_pair = matrices is Matrices.FIELD_INTERACTION
        num_matrices = self.num_pairs if self.by_pair else num_fields - 1 if self.by_field else 1
        # Xavier's variance of one d x d matrix, 1 / d; of the tensor as a whole it would shrink with their number.
        self.weight = nn.Parameter(torch.randn(num_matrices, embedding_dim, embedding_dim) * embedding_dim**-0.5)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map (B, F, d) to (B, F (F - 1) / 2, d), pairs (0, 1), (0, 2), …, (F - 2, F - 1)."""
        if self.by_pair:
            lefts = embeddings.index_select(1, self.first)
            lefts = torch.bmm(lefts.transpose(0, 1), self.weight).transpose(0, 1)
        else:
            if self.by_field:
                fields = torch.bmm(embeddings[:, :-1].transpose(0, 1), self.weight).transpose(0, 1)
            else:
                fields = torch.matmul(embeddings, self.weight[0])
            lefts = fields.index_select(1, self.first)
        return lefts.to(embeddings.dtype) * embeddings.index_select(1, self.second)


class FiBiNET(nn.Module):
    """logit = sum of the ids' weights + w · dense + MLP([pairs of v; pairs of s * v; dense]), s the fields' weights.

    Both kinds of pairs go through the same matrices, as BARS' counts of parameters show.
    """

    has_dense: Final[bool]

    def __init__(self, config: FiBiNETConfig, num_fields: int, embedding_dim: int, num_dense: int) -> None:
        super().__init__()
        self.has_dense = num_dense > 0
        self.num_fields = num_fields
        self.embedding_dim = embedding_dim
        self.width = num_fields * embedding_dim
        self.dense_weights = linear(num_dense, 1, bias=False) if num_dense > 0 else nn.Identity()
        self.field_weights = FieldWeights(num_fields, config.reduction_ratio)
        self.pairs = BilinearPairs(num_fields, embedding_dim, config.matrices)
        width = 2 * self.pairs.num_pairs * embedding_dim + num_dense
        self.mlp = MLP(width, config.hidden_units, batch_norm=config.batch_norm, dropout=config.dropout)
        self.output = linear(config.hidden_units[-1], 1)  # its bias serves the linear part as well

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, F * embedding_dim + F)."""
        vectors = embeddings[:, : self.width].view(-1, self.num_fields, self.embedding_dim)
        weights, products = self.field_weights(vectors), self.pairs(vectors)
        # (s_i v_i) W * (s_j v_j) = s_i s_j (v_i W * v_j): the matrices need not be applied a second time.
        scales = weights.index_select(1, self.pairs.first) * weights.index_select(1, self.pairs.second)
        inputs = torch.cat([products, products * scales.unsqueeze(2)], 1).flatten(1)
        logits = embeddings[:, self.width :].sum(1)
        if self.has_dense:
            logits = logits + self.dense_weights(dense).squeeze(1)
            inputs = torch.cat([inputs, dense], 1)
        deep: Tensor = self.output(self.mlp(inputs))
        return (logits + deep.squeeze(1)).float()
