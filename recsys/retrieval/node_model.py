"""`NodeModel`: planned embeddings of all users and items, in the order of nodes, and the encoder over them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollectionInterface
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.specs import FeatureSpec
from recsys.retrieval.dimension_shards import num_ranks, shares, to_columns
from recsys.retrieval.encoder import Encoded, Encoder


class NodeIds:
    """Ids of all nodes to look up, each rank its share: users 0 to U - 1, items 0 to M - 1, the unknown one first."""

    def __init__(self, features: Sequence[FeatureSpec], *, rank: int, device: torch.device) -> None:
        """Of two features, users and items, whose vocabularies are known."""
        assert len(features) == 2
        counts = [feature.num_embeddings or 0 for feature in features]
        self.num_users, self.num_items = counts
        self.shares = [shares(count) for count in counts]
        parts = [torch.arange(count).tensor_split(num_ranks())[rank] for count in counts]
        # A sharded look-up needs as many rows on every rank; rows beyond a rank's ids look nothing up.
        num_rows = max(max(share) for share in self.shares)
        lengths = [(torch.arange(num_rows) < part.numel()).long() for part in parts]
        self.jagged = KeyedJaggedTensor(
            keys=[feature.source for feature in features],
            values=torch.cat(parts).to(device),
            lengths=torch.cat(lengths).to(device),
        )
        self.own = [part.numel() for part in parts]

    @property
    def num_nodes(self) -> int:
        """Users and items, each with the unknown one."""
        return self.num_users + self.num_items


class NodeModel(nn.Module):
    """The trained module: looks every node up, then encodes. The order of nodes is decided here and nowhere else."""

    def __init__(self, embeddings: EmbeddingBagCollectionInterface, encoder: Encoder) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.encoder = encoder

    def forward(self, nodes: NodeIds) -> Encoded:
        """Embed all nodes: users, then items.

        Args:
            nodes: the same on every step.

        Returns:
            This rank's columns (N, D / W) of all nodes, as looked up and as scored.
        """
        values = self.embeddings(nodes.jagged).values().float()
        users, items = values.chunk(2, dim=1)
        own_users, own_items = nodes.own
        parts = (to_columns(users[:own_users], nodes.shares[0]), to_columns(items[:own_items], nodes.shares[1]))
        initial: Tensor = torch.cat(parts)
        return Encoded(initial=initial, final=self.encoder(initial))
