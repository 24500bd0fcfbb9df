"""`NodeModel`: planned embeddings of all users and items, in the order of nodes, and the encoder over them."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollectionInterface
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.specs import FeatureSpec
from recsys.retrieval.dimension_shards import num_ranks, shares, to_columns
from recsys.retrieval.encoder import Encoded, Encoder, Reached


class NodeIds:
    """Ids of nodes to look up, each rank its share: users 0 to U - 1, items 0 to M - 1, the unknown one first."""

    def __init__(
        self, features: Sequence[FeatureSpec], *, rank: int, device: torch.device, chosen: Tensor | None = None
    ) -> None:
        """Of two features, users and items, whose vocabularies are known: all nodes, or those of ascending numbers."""
        assert len(features) == 2
        self._features, self._rank = features, rank
        self.chosen = chosen
        counts = [feature.num_embeddings or 0 for feature in features]
        self.num_users, self.num_items = counts
        every = [torch.arange(count, device=device) for count in counts]
        if chosen is not None:
            every = [chosen[chosen < self.num_users], chosen[chosen >= self.num_users] - self.num_users]
        self.shares = [shares(ids.numel()) for ids in every]
        parts = [ids.tensor_split(num_ranks())[rank] for ids in every]
        # A sharded look-up needs as many rows on every rank; rows beyond a rank's ids look nothing up.
        num_rows = max(max(share) for share in self.shares)
        lengths = [(torch.arange(num_rows) < part.numel()).long() for part in parts]
        self.jagged = KeyedJaggedTensor(
            keys=[feature.source for feature in features],
            values=torch.cat(parts).to(device),
            lengths=torch.cat(lengths).to(device),
        )
        self.own = [part.numel() for part in parts]

    def some(self, chosen: Tensor) -> "NodeIds":
        """Of these features, the nodes of some numbers, int64 (n,), ascending."""
        return NodeIds(self._features, rank=self._rank, device=chosen.device, chosen=chosen)

    @property
    def num_nodes(self) -> int:
        """Users and items, each with the unknown one."""
        return self.num_users + self.num_items


@runtime_checkable
class WholeTables(Protocol):
    """Embeddings that may be had without a look-up."""

    def every_row(self) -> Tensor | None:
        """All of users, then items, (N, D), or None where they must be looked up."""


class NodeModel(nn.Module):
    """The trained module: looks every node up, then encodes. The order of nodes is decided here and nowhere else."""

    def __init__(self, embeddings: EmbeddingBagCollectionInterface, encoder: Encoder) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.encoder = encoder

    def forward(self, nodes: NodeIds, places: Tensor | Reached | None = None) -> Encoded:
        """Embed nodes: users, then items.

        Args:
            nodes: what is looked up: all, or what was reached.
            places: int64 (P,), the nodes wanted, which may repeat, or how they were reached. None: all.

        Returns:
            This rank's columns (P, D / W) of these nodes, as looked up and as scored.
        """
        initial = self._initial(nodes)
        if isinstance(places, Reached):
            return self.encoder.at_reached(initial, places)
        if places is not None:
            return self.encoder.at(initial, places)
        return Encoded(initial=initial, final=self.encoder(initial))

    def _initial(self, nodes: NodeIds) -> Tensor:
        whole = self.embeddings.every_row() if isinstance(self.embeddings, WholeTables) else None
        if whole is not None:
            return whole if nodes.chosen is None else whole.index_select(0, nodes.chosen)
        values = self.embeddings(nodes.jagged).values().float()
        users, items = values.chunk(2, dim=1)
        own_users, own_items = nodes.own
        parts = (to_columns(users[:own_users], nodes.shares[0]), to_columns(items[:own_items], nodes.shares[1]))
        initial: Tensor = torch.cat(parts)
        return initial
