"""FastRP: random projections of powers of the graph; vectors of all nodes in seconds, without training."""

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.ops.propagation import propagate
from recsys.retrieval.encoder import FittedConfig, graph_of
from recsys.retrieval.recommender import DotRecommender, Recommender

BLOCK_COLUMNS = 64
"""Columns drawn and propagated at a time, which bounds memory."""


class Transition(Enum):
    """How the graph is normalised."""

    RANDOM_WALK = "random_walk"  # D^-1 A, as published
    SYMMETRIC = "symmetric"  # D^-1/2 A D^-1/2, as LightGCN propagates


@dataclass(frozen=True, kw_only=True)
class FastRPConfig(FittedConfig):
    """E = sum_k w_k M^k D^alpha S: M the graph, D its degrees, S (N, d) a very sparse random projection.

    Dot products of a user with an item add up the powers of M of odd degree between them. Columns are not centred and
    rows not given length 1, which the paper does for classifiers: both would change what dot products mean.
    Source: Chen et al., FastRP, CIKM 2019, arXiv:1908.11512, eq. 3-8; Li et al., Very sparse random projections, KDD
    2006.
    """

    embedding_dim: int = 512
    layer_weights: tuple[float, ...] = (0.0, 1.0, 2.0)  # w_0, w_1, …; w_0 of the projection itself
    alpha: float = 0.0  # power of degrees, in [-1, 0]; lower: popular nodes count less
    transition: Transition = Transition.SYMMETRIC
    seed: int = 0  # of the projection

    def __post_init__(self) -> None:
        if self.embedding_dim < 1:
            raise ConfigError(f"retrieval.model.embedding_dim={self.embedding_dim}: must be 1 or more.")
        if len(self.layer_weights) < 2 or not any(self.layer_weights):
            raise ConfigError(
                f"retrieval.model.layer_weights={list(self.layer_weights)}: name w_0, w_1 and so on, of which one must "
                "not be 0."
            )
        if not -1 <= self.alpha <= 0:
            raise ConfigError(f"retrieval.model.alpha={self.alpha}: must lie in [-1, 0].")

    def fit(self, interactions: Interactions) -> Recommender:
        """Vectors of all nodes; a new user's is the mean of one layer less of his items."""
        users = interactions.num_users
        found, passed_on = self.vectors(interactions)
        if self.transition is Transition.SYMMETRIC:
            degrees = interactions.item_degrees.clamp(min=1).float()
            passed_on[users:] *= degrees.rsqrt().unsqueeze(1)
        return DotRecommender(users=found[:users].clone(), items=found[users:].clone(), fold_in=passed_on[users:])

    def vectors(self, interactions: Interactions) -> tuple[Tensor, Tensor]:
        """Of all nodes, users first: E, and sum_k w_(k+1) M^k D^alpha S, float32 (N, d) each.

        Memory: both, and four times 64 columns.
        """
        adjacency = graph_of(interactions)
        degrees = torch.cat([interactions.user_degrees, interactions.item_degrees]).clamp(min=1).float().unsqueeze(1)
        walk = self.transition is Transition.RANDOM_WALK
        # M^k = D^-1/2 A^k D^1/2 with A symmetric, so one polynomial serves both.
        before = degrees.pow(self.alpha + (0.5 if walk else 0.0))
        weights = torch.tensor(self.layer_weights, device=degrees.device)
        parts = []
        for first in range(0, self.embedding_dim, BLOCK_COLUMNS):
            drawn = before * self._projection(len(degrees), first, degrees.device)
            parts.append([propagate(drawn, each, adjacency) for each in (weights, weights[1:])])
        both = [torch.cat(blocks, dim=1) for blocks in zip(*parts, strict=True)]
        return (both[0] * degrees.rsqrt(), both[1] * degrees.rsqrt()) if walk else (both[0], both[1])

    def _projection(self, count: int, first: int, device: torch.device) -> Tensor:
        """Columns `first`, … of S: +-sqrt(s / d) with probability 1 / 2s each, else 0, where s = sqrt(N)."""
        width = min(BLOCK_COLUMNS, self.embedding_dim - first)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + first)
        sparsity = math.sqrt(count)
        drawn = torch.rand(count, width, generator=generator)
        signs = (drawn < 0.5 / sparsity).float() - (drawn > 1 - 0.5 / sparsity).float()
        return (signs * math.sqrt(sparsity / self.embedding_dim)).to(device)
