"""Factorisation machine: linear part and the dot products of all pairs of embeddings.

Source: Rendle, Factorization Machines, ICDM 2010. As there, a numeric column enters the pairs too: its value times a
learned vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from recsys.core.specs import FeatureSpec
from recsys.models.features import (
    check_at_least,
    embedded,
    equal_width,
    linear_weights,
    without_linear,
)
from recsys.models.layers import NumericVectors, pairwise_sum
from recsys.models.lr import LR


@dataclass(frozen=True, kw_only=True)
class FMConfig:
    """The width is that of criteo_x4 of BARS; there is no other hyper-parameter."""

    embedding_dim: int = 16

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column `embedding_dim` wide, then every column as a linear weight."""
        return embedded(categorical, self.embedding_dim) + linear_weights(categorical)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`."""
        vectors = without_linear(features, model="fm")
        return FM(len(vectors), equal_width(vectors, model="fm"), num_dense)


class FM(nn.Module):
    """logit = bias + sum of the ids' weights + w · dense + sum over pairs of <v_i, v_j>.

    v: the embeddings, and each numeric column's value times its vector.
    """

    def __init__(self, num_fields: int, embedding_dim: int, num_dense: int) -> None:
        super().__init__()
        self.width = num_fields * embedding_dim
        self.num_vectors = num_fields + num_dense
        self.embedding_dim = embedding_dim
        self.linear = LR(num_dense)
        self.numeric = NumericVectors(num_dense, embedding_dim)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, F * embedding_dim + F)."""
        vectors = self.numeric(dense, embeddings[:, : self.width])
        pairs = pairwise_sum(vectors.reshape(-1, self.num_vectors, self.embedding_dim))
        logits: Tensor = self.linear(dense, embeddings[:, self.width :]) + pairs
        return logits.float()
