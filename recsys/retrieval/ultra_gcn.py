"""UltraGCN: no messages are passed; what they converge to is learned, as are items that users share."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.retrieval.cooccurrence import counts_in_chunks
from recsys.retrieval.degree_weighted import beta
from recsys.retrieval.encoder import Encoded, Encoder, EncoderConfig, Gather, inverse_root_degrees


@dataclass(frozen=True, kw_only=True)
class UltraGCNConfig(EncoderConfig):
    """The rest of the paper is retrieval/loss=degree_weighted, which its yaml takes, as it does the initial embeddings.

    Small ones train for epochs at popularity's recall before they learn more: some 15 of the authors' on ML-1M.
    Neighbours by co-occurrence take 12 bytes each.
    """

    num_neighbors: int = 10  # of an item, itself among them
    neighbor_weight: float = 5e-4  # lambda, of the loss over neighbours; 2.75 for Amazon-Book

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_neighbors < 1:
            raise ConfigError(f"retrieval.model.num_neighbors={self.num_neighbors}: must be 1 or more.")
        if not self.neighbor_weight >= 0:
            raise ConfigError(f"retrieval.model.neighbor_weight={self.neighbor_weight}: must be 0 or more.")

    def build(self, interactions: Interactions, device: torch.device) -> Encoder:
        """Find the neighbours of every item."""
        return UltraGCN(self, interactions).to(device)


class UltraGCN(Encoder):
    """Source: Mao et al., UltraGCN, CIKM 2021, arXiv:2110.15114, eq. 14-16, weights as in the authors' program."""

    neighbors: Tensor
    similarities: Tensor
    scale: Tensor

    def __init__(self, config: UltraGCNConfig, interactions: Interactions) -> None:
        super().__init__()
        self._weight, self._first_item = config.neighbor_weight, interactions.num_users
        neighbors, similarities = item_neighbors(interactions, config.num_neighbors)
        self.register_buffer("neighbors", neighbors, persistent=False)
        self.register_buffer("similarities", similarities, persistent=False)
        self.register_buffer("scale", inverse_root_degrees(interactions), persistent=False)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return the embeddings as they are."""
        return nodes

    def fold_in(self, nodes: Tensor) -> Tensor:
        """A new node is what its neighbours' embeddings say."""
        return nodes * self.scale

    def auxiliary(self, encoded: Encoded, users: Tensor, items: Tensor, gather: Gather) -> Tensor | None:
        """A user is drawn to the neighbours of his items too."""
        ids = items - self._first_item
        near = self.neighbors[ids] + self._first_item
        queries = gather(encoded.final.index_select(0, users))
        found = gather(encoded.final.index_select(0, near.flatten())).view(*near.shape, -1)
        scores = (found @ queries.unsqueeze(2)).squeeze(2)
        return self._weight * (self.similarities[ids] * softplus(-scores)).sum()


def item_neighbors(interactions: Interactions, count: int) -> tuple[Tensor, Tensor]:
    """The items that share most users with each item, and how near they are.

    Returns:
        (int64 (M, n), float32 (M, n)), n at most `count`; 0 and 0 where an item shares users with fewer.
    """
    # Degree of an item in the graph of co-occurrence: every user of his adds all that he met.
    weights = interactions.user_degrees[interactions.users].double()
    sums = torch.zeros(interactions.num_items, dtype=torch.float64, device=weights.device)
    sums.index_add_(0, interactions.items, weights)
    parts: list[tuple[Tensor, Tensor]] = []
    for items, counts in counts_in_chunks(interactions, "item neighbours"):
        near = counts * beta(sums[items].unsqueeze(1), sums)
        values, nearest = near.topk(min(count, interactions.num_items), dim=1)
        parts.append((nearest * (values > 0), values))
    neighbors, similarities = (torch.cat(part) for part in zip(*parts, strict=True))
    return neighbors, similarities
