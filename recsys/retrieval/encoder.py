"""What a retrieval model is: an `Encoder` of planned node embeddings, trained, or a fit of the interactions alone.

Legend: N nodes, users first (ids 0 to U - 1), then items (U + id); d width, or this rank's columns of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.core.specs import FeatureSpec
from recsys.ops.propagation import SparseRows, bipartite_adjacency
from recsys.retrieval.recommender import Recommender

Gather = Callable[[Tensor], Tensor]
"""This rank's columns (n, d) of some vectors to all columns, differentiable."""


class Encoded(NamedTuple):
    """Nodes of one step, all of them or those of a batch: `initial` (n, d) as looked up, `final` (n, d) as scored.

    A tuple, because DistributedDataParallel finds tensors in tuples, not in dataclasses, and with a static graph
    (TorchRec's way) it adds up the ranks' gradients of dense weights only if it has found some.
    """

    initial: Tensor
    final: Tensor


class Reached(NamedTuple):
    """What a batch reaches: `nodes` int64 (n,), ascending, those to look up, and how they are summed from outside in.

    Level 0 are the batch's distinct nodes, the last level all of `nodes`. `layers`: row r of matrix j sums nodes of
    level j + 1 into the r-th of level j. `levels`: int64, where the nodes of level j are in level j + 1. `batch`: int64
    (P,), the batch's rows in level 0.
    """

    nodes: Tensor
    batch: Tensor
    layers: list[SparseRows]
    levels: list[Tensor]


class Encoder(nn.Module):
    """Node embeddings in, node embeddings out; columns must not mix, because ranks hold different ones."""

    def forward(self, nodes: Tensor) -> Tensor:
        """Return what is scored, float32 (N, d), of looked-up embeddings, float32 (N, d)."""
        raise NotImplementedError

    def at(self, nodes: Tensor, places: Tensor) -> Encoded:
        """Both of some nodes, (P, d): int64 places (P,), which may repeat. An encoder may know a shorter way."""
        return Encoded(initial=nodes.index_select(0, places), final=self(nodes).index_select(0, places))

    def reached(self, places: Tensor) -> Reached | None:
        """What a batch's places, int64 (P,), reach, for an encoder that trains on a part of the graph; None: all."""
        return None

    def at_reached(self, nodes: Tensor, reached: Reached) -> Encoded:
        """As `at`, (P, d), of the looked-up embeddings of what was reached, float32 (n, d)."""
        raise NotImplementedError

    def fold_in(self, nodes: Tensor) -> Tensor:
        """What each node adds to the vector of a new neighbour that it alone describes, float32 (N, d).

        The vector is the sum over neighbours by the root of their number (`DotRecommender.of_history`).
        """
        raise NotImplementedError

    def auxiliary(self, encoded: Encoded, users: Tensor, items: Tensor, gather: Gather) -> Tensor | None:
        """A loss of the model's own beside that of scores, as contrastive models have one; None without.

        Args:
            encoded: of this step.
            users, items: int64 (B,), node numbers of the batch's users and positive items.
            gather: this rank's columns of vectors to all columns.

        Returns:
            A sum over the batch's rows, a scalar with gradient, equal on all ranks.
        """
        return None


@dataclass(frozen=True, kw_only=True)
class RetrieverConfig:
    """Base of the configurations of retrieval models: `EncoderConfig` or `FittedConfig`."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(RetrieverConfig, ABC):
    """A model that trains planned embeddings of users and items."""

    embedding_dim: int = 64

    @property
    def looks_up_part(self) -> str:
        """The option whose steps look up a part of the nodes; empty: they look up all."""
        return ""

    def __post_init__(self) -> None:
        if self.embedding_dim < 1:
            raise ConfigError(f"retrieval.model.embedding_dim={self.embedding_dim}: must be 1 or more.")

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """The two features to plan, users first."""
        return [replace(feature, embedding_dim=self.embedding_dim) for feature in categorical]

    @abstractmethod
    def build(self, interactions: Interactions, device: torch.device) -> Encoder:
        """The encoder of these interactions; parameters from torch's global generator."""


@dataclass(frozen=True, kw_only=True)
class FittedConfig(RetrieverConfig, ABC):
    """A model without training: a closed form or counts of the interactions."""

    @abstractmethod
    def fit(self, interactions: Interactions) -> Recommender:
        """The recommender of these interactions."""


def graph_of(interactions: Interactions) -> SparseRows:
    """The symmetric normalised adjacency of all nodes, on the device of the interactions."""
    return bipartite_adjacency(
        interactions.users, interactions.items, num_users=interactions.num_users, num_items=interactions.num_items
    )


def inverse_root_degrees(interactions: Interactions) -> Tensor:
    """1 / sqrt(degree) of every node, float32 (N, 1); 1 of a node without neighbours."""
    degrees = torch.cat([interactions.user_degrees, interactions.item_degrees])
    return degrees.clamp(min=1).float().rsqrt().unsqueeze(1)
