"""EASE^R: the item-item matrix that reconstructs histories best without an item explaining itself."""

from dataclasses import dataclass

import torch

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.retrieval.cooccurrence import counts_in_chunks
from recsys.retrieval.encoder import FittedConfig
from recsys.retrieval.recommender import Recommender, WeightRecommender


@dataclass(frozen=True, kw_only=True)
class EASEConfig(FittedConfig):
    """B = I - P diag(1 / P_jj) with P = (X^T X + lambda I)^-1: 4 M^2 bytes, twice that while fitting, M^3 operations.

    Source: Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019, arXiv:1905.03375, eq. 8.
    """

    regularizer: float = 300.0  # lambda

    def __post_init__(self) -> None:
        if not self.regularizer > 0:
            raise ConfigError(f"retrieval.model.regularizer={self.regularizer}: must be above 0.")

    def fit(self, interactions: Interactions) -> Recommender:
        """Invert in place: the only dense matrix that is held twice is the one LAPACK factorises."""
        num_items = interactions.num_items
        matrix = torch.empty(num_items, num_items, device=interactions.users.device)
        for items, counts in counts_in_chunks(interactions, "items in common"):
            matrix[items] = counts
        matrix.diagonal().add_(self.regularizer)
        torch.linalg.cholesky(matrix, out=matrix)
        torch.cholesky_inverse(matrix, out=matrix)
        matrix /= -matrix.diagonal().clone()
        matrix.fill_diagonal_(0)
        return WeightRecommender(weights=matrix)
