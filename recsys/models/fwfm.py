"""FwFM, the field-weighted factorisation machine: each pair of fields has a weight of its own.

Source: Pan et al., WWW 2018, arXiv:1806.03514. Its formula takes real values x, so a numeric column is a field like the
others: its value times a learned vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

import torch
from torch import Tensor, nn

from recsys.core.specs import FeatureSpec
from recsys.models.features import (
    check_at_least,
    embedded,
    equal_width,
    linear_weights,
    split_linear,
    without_linear,
)
from recsys.models.layers import NumericVectors, linear
from recsys.models.lr import LR


class LinearPart(Enum):
    """What the linear part multiplies an id's indicator with, by the names of the paper."""

    WEIGHT = "weight"  # a number of the id: FwFMs_LW
    ID_VECTOR = "id_vector"  # <v, w> with a second vector w of the id: FwFMs_FeLV
    FIELD_VECTOR = "field_vector"  # <v, w> with a vector w of the field: FwFMs_FiLV


@dataclass(frozen=True, kw_only=True)
class FwFMConfig:
    """Defaults: the best of BARS on frappe_x1, save for the width, which is that of criteo_x4."""

    embedding_dim: int = 16
    linear_part: LinearPart = LinearPart.ID_VECTOR

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column `embedding_dim` wide, then what the linear part reads of every id, if anything."""
        vectors, weights = embedded(categorical, self.embedding_dim), linear_weights(categorical)
        if self.linear_part is LinearPart.ID_VECTOR:
            weights = [replace(spec, embedding_dim=self.embedding_dim) for spec in weights]
        return vectors if self.linear_part is LinearPart.FIELD_VECTOR else vectors + weights

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`."""
        if self.linear_part is LinearPart.FIELD_VECTOR:
            embedding_dim = equal_width(features, model="fwfm")
            part: nn.Module = FieldVectors((len(features) + num_dense) * embedding_dim)
            return FwFM(part, len(features), embedding_dim, num_dense)
        if self.linear_part is LinearPart.WEIGHT:
            vectors = without_linear(features, model="fwfm")
            embedding_dim = equal_width(vectors, model="fwfm")
            part = IdWeights(num_dense)
        else:
            vectors, _ = split_linear(features, model="fwfm")
            embedding_dim = equal_width(features, model="fwfm")
            part = IdVectors(len(vectors) * embedding_dim, num_dense * embedding_dim)
        return FwFM(part, len(vectors), embedding_dim, num_dense)


class FwFM(nn.Module):
    """logit = linear part + sum over pairs of r_ij <v_i, v_j>.

    v: the embeddings, and each numeric column's value times its vector.
    """

    def __init__(self, linear_part: nn.Module, num_fields: int, embedding_dim: int, num_dense: int) -> None:
        super().__init__()
        self.width = num_fields * embedding_dim
        self.num_vectors = num_fields + num_dense
        self.embedding_dim = embedding_dim
        self.linear = linear_part
        self.numeric = NumericVectors(num_dense, embedding_dim)
        self.pairs = WeightedPairs(self.num_vectors)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, what `features` asks for)."""
        vectors = self.numeric(dense, embeddings[:, : self.width])
        pairs = self.pairs(vectors.view(-1, self.num_vectors, self.embedding_dim))
        logits: Tensor = self.linear(dense, vectors, embeddings[:, self.width :]) + pairs
        return logits.float()


class WeightedPairs(nn.Module):
    """Sum over pairs of r_ij <v_i, v_j>; r starts as FuxiCTR's layer from all pairs to one unit does."""

    places: Tensor

    def __init__(self, num_vectors: int) -> None:
        super().__init__()
        self.num_vectors = num_vectors
        first, second = torch.triu_indices(num_vectors, num_vectors, offset=1)
        self.register_buffer("places", first * num_vectors + second, persistent=False)
        num_pairs = self.places.numel()
        self.weights = nn.Parameter(torch.randn(num_pairs) * (2 / (num_pairs + 1)) ** 0.5)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the sum, (B,), over `vectors` (B, F, d)."""
        # Above the diagonal the weights, elsewhere 0: one product of matrices, where a list of pairs would be copied.
        matrix = self.weights.new_zeros(self.num_vectors * self.num_vectors).scatter(0, self.places, self.weights)
        matrix = matrix.view(1, self.num_vectors, self.num_vectors).expand(vectors.size(0), -1, -1)
        return (torch.bmm(matrix, vectors).to(vectors.dtype) * vectors).sum([1, 2])


class IdWeights(nn.Module):
    """bias + sum of the ids' weights + w · dense."""

    def __init__(self, num_dense: int) -> None:
        super().__init__()
        self.lr = LR(num_dense)

    def forward(self, dense: Tensor, _vectors: Tensor, weights: Tensor) -> Tensor:
        """Return (B,) from dense (B, num_dense), all vectors side by side and the ids' weights (B, F)."""
        logits: Tensor = self.lr(dense, weights)
        return logits


class IdVectors(nn.Module):
    """bias + sum of <v_i, w_i>, w_i the second vector of an id or of a numeric column."""

    has_dense: Final[bool]

    def __init__(self, width: int, numeric_width: int) -> None:
        super().__init__()
        self.width = width
        self.has_dense = numeric_width > 0
        self.bias = nn.Parameter(torch.zeros(1))
        self.numeric = linear(numeric_width, 1, bias=False) if numeric_width > 0 else nn.Identity()

    def forward(self, _dense: Tensor, vectors: Tensor, weights: Tensor) -> Tensor:
        """Return (B,) from all vectors, (B, (F + num_dense) d), and the ids' second vectors, (B, F d)."""
        logits = (vectors[:, : self.width] * weights).sum(1) + self.bias
        if self.has_dense:
            logits = logits + self.numeric(vectors[:, self.width :]).squeeze(1)
        return logits


class FieldVectors(nn.Module):
    """bias + sum of <v_i, w_i>, w_i the second vector of a field."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fields = linear(width, 1)

    def forward(self, _dense: Tensor, vectors: Tensor, _weights: Tensor) -> Tensor:
        """Return (B,) from all vectors, (B, (F + num_dense) d)."""
        logits: Tensor = self.fields(vectors)
        return logits.squeeze(1)
