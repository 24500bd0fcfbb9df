"""Item-based collaborative filtering: cosine of the users that two items share, nearest neighbours only."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.retrieval.cooccurrence import counts_in_chunks
from recsys.retrieval.encoder import FittedConfig
from recsys.retrieval.recommender import NeighborRecommender, Recommender


@dataclass(frozen=True, kw_only=True)
class ItemCFConfig(FittedConfig):
    """score = sum over the history of c_ij / sqrt(d_i d_j), for the nearest neighbours j of each item i.

    Source: Sarwar et al., WWW 2001 (cosine); c counts common users, d users.
    """

    num_neighbors: int = 100

    def __post_init__(self) -> None:
        if self.num_neighbors < 1:
            raise ConfigError(f"retrieval.model.num_neighbors={self.num_neighbors}: must be 1 or more.")

    def fit(self, interactions: Interactions) -> Recommender:
        """Count, normalise, keep the nearest."""
        scale = interactions.item_degrees.clamp(min=1).float().rsqrt()
        width = min(self.num_neighbors, interactions.num_items)
        parts: list[tuple[Tensor, Tensor]] = []
        for items, counts in counts_in_chunks(interactions, "item similarities"):
            similar = counts * scale * scale[items].unsqueeze(1)
            similar[torch.arange(len(items)), items] = 0  # an item does not recommend itself
            values, nearest = similar.topk(width, dim=1)
            parts.append((values, nearest))
        similarities, neighbors = (torch.cat(part) for part in zip(*parts, strict=True))
        return NeighborRecommender(neighbors=neighbors * (similarities > 0), similarities=similarities)
