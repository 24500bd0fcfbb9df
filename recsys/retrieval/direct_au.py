"""Alignment and uniformity: pairs lie together, users and items lie apart; nothing is drawn."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from recsys.core.errors import ConfigError
from recsys.retrieval.loss import LossConfig, Triples


@dataclass(frozen=True, kw_only=True)
class DirectAUConfig(LossConfig):
    """mean |u - i|^2 + gamma / 2 (log mean exp(-2 |u - u'|^2) + the same of items), of vectors of length 1.

    Vectors are given length 1 here whatever retrieval.similarity says: the authors learn directions and rank by dot
    products. Uniformity is over pairs of rows, so that a user or item in two rows counts as two that coincide, as in
    the authors' program.
    Published on sparse graphs. On dense ones, whose users share most items, less gamma helped here.
    Source: Wang et al., Towards representation alignment and uniformity, KDD 2022, arXiv:2206.12811, eq. 7-8.
    """

    needs_negatives: ClassVar[bool] = False

    gamma: float = 2.0

    def __post_init__(self) -> None:
        if not self.gamma >= 0:
            raise ConfigError(f"retrieval.loss.gamma={self.gamma}: must be 0 or more.")

    def __call__(self, triples: Triples) -> Tensor:
        """The mean, times the rows."""
        users, items = normalize(triples.users, dim=1), normalize(triples.positives, dim=1)
        apart = (uniformity(users) + uniformity(items)) / 2
        return (users - items).square().sum() + len(users) * self.gamma * apart


def uniformity(vectors: Tensor) -> Tensor:
    """Log of the mean of exp(-2 |x - y|^2) over pairs of rows, a scalar; 0 of one row, which has no pair.

    Args:
        vectors: (B, d), of length 1.
    """
    count = len(vectors)
    if count < 2:
        return vectors.sum() * 0
    first, second = torch.triu_indices(count, count, 1, device=vectors.device)
    # |x - y|^2 = 2 - 2 x y of unit vectors: one matrix product instead of B^2 differences.
    exponents = (4 * (vectors @ vectors.t()) - 4)[first, second]
    return exponents.logsumexp(0) - torch.tensor(float(len(first)), device=vectors.device).log()
