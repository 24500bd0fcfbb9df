"""FmFM, the field-matrixed factorisation machine: each pair of fields is multiplied through a matrix of its own.

Source: Sun et al., WWW 2021, arXiv:2102.12994. A numeric column is a field like the others: its value times a learned
vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from recsys.core.specs import FeatureSpec
from recsys.models.features import (
    check_at_least,
    embedded,
    equal_width,
    linear_weights,
    total_width,
    without_linear,
)
from recsys.models.layers import NumericVectors
from recsys.models.lr import LR


class Interaction(Enum):
    """What stands between the two vectors of a pair of fields."""

    VECTOR = "vector"  # a vector of weights: FvFM
    MATRIX = "matrix"  # a matrix: FmFM; takes embeddings of different widths


@dataclass(frozen=True, kw_only=True)
class FmFMConfig:
    """Defaults: the best of BARS on frappe_x1, save for the width, which is that of criteo_x4."""

    embedding_dim: int = 16
    interaction: Interaction = Interaction.VECTOR

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column `embedding_dim` wide, then every column as a linear weight."""
        return embedded(categorical, self.embedding_dim) + linear_weights(categorical)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`. Only MATRIX takes widths that differ between features."""
        vectors = without_linear(features, model="fmfm")
        width = total_width(vectors, model="fmfm")
        if self.interaction is Interaction.MATRIX:
            widths = [spec.embedding_dim for spec in vectors] + [self.embedding_dim] * num_dense
            return FmFM(MatrixPairs(widths), width, NumericVectors(num_dense, self.embedding_dim), LR(num_dense))
        embedding_dim = equal_width(vectors, model="fmfm with model.interaction=vector")
        pairs = VectorPairs(len(vectors) + num_dense, embedding_dim)
        return FmFM(pairs, width, NumericVectors(num_dense, embedding_dim), LR(num_dense))


class FmFM(nn.Module):
    """logit = bias + sum of the ids' weights + w · dense + sum over pairs i < j of v_i M_ij v_j.

    v: the embeddings, and each numeric column's value times its vector. VECTOR has diagonal matrices M only.
    """

    def __init__(self, pairs: nn.Module, width: int, numeric: NumericVectors, linear: LR) -> None:
        super().__init__()
        self.width = width
        self.linear = linear
        self.numeric = numeric
        self.pairs = pairs

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, sum of widths + F)."""
        pairs = self.pairs(self.numeric(dense, embeddings[:, : self.width]))
        logits: Tensor = self.linear(dense, embeddings[:, self.width :]) + pairs
        return logits.float()


class MatrixPairs(nn.Module):
    """Sum over pairs i < j of v_i M_ij v_j, M_ij of shape (d_i, d_j).

    With the vectors side by side as v, this is v M v where M holds M_ij in the blocks above its diagonal. `weights` are
    the numbers of these blocks, by the rows of M. One product of matrices: it multiplies by the empty half as well, yet
    takes a fiftieth of the time of products pair by pair.
    They start as FuxiCTR's: Xavier normal over its one tensor (pairs, d, d), so the more pairs, the smaller.
    """

    places: Tensor

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.width = sum(widths)
        width_of = torch.tensor(widths)
        field = torch.arange(len(widths)).repeat_interleave(width_of)
        row, column = torch.nonzero(field.unsqueeze(1) < field.unsqueeze(0), as_tuple=True)
        self.register_buffer("places", row * self.width + column, persistent=False)
        num_pairs = len(widths) * (len(widths) - 1) // 2
        left, right = width_of[field[row]], width_of[field[column]]
        self.weights = nn.Parameter(torch.randn(row.numel()) * (2 / (left * right + num_pairs * right)).sqrt())

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the sum, (B,), over `vectors` (B, sum of widths)."""
        matrix = self.weights.new_zeros(self.width * self.width).scatter(0, self.places, self.weights)
        through = vectors @ matrix.view(self.width, self.width)
        return (through.to(vectors.dtype) * vectors).sum(1)


class VectorPairs(nn.Module):
    """Sum over pairs i < j of the sum over k of w_ijk v_ik v_jk.

    `weights` (d, pairs (0, 1), (0, 2), …) start as FuxiCTR's: Xavier normal over one tensor (pairs, d).
    """

    places: Tensor

    def __init__(self, num_vectors: int, embedding_dim: int) -> None:
        super().__init__()
        self.num_vectors = num_vectors
        self.embedding_dim = embedding_dim
        first, second = torch.triu_indices(num_vectors, num_vectors, offset=1)
        places = (second * num_vectors + first).expand(embedding_dim, -1).contiguous()
        self.register_buffer("places", places, persistent=False)
        num_pairs = first.numel()
        self.weights = nn.Parameter(torch.randn(embedding_dim, num_pairs) * (2 / (embedding_dim + num_pairs)) ** 0.5)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the sum, (B,), over `vectors` (B, F * d)."""
        # Dimension by dimension: below the diagonal the weights, elsewhere 0, times all fields of all rows. A list of
        # pairs would take F / 2 times the memory of the vectors.
        matrix = self.weights.new_zeros(self.embedding_dim, self.num_vectors * self.num_vectors)
        matrix = matrix.scatter(1, self.places, self.weights).view(-1, self.num_vectors, self.num_vectors)
        by_dimension = vectors.t().reshape(self.num_vectors, self.embedding_dim, -1).transpose(0, 1).contiguous()
        through = torch.bmm(matrix, by_dimension).to(vectors.dtype)
        return (through * by_dimension).sum([0, 1])
