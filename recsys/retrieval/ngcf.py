"""NGCF: propagation with a transformation and a product in every layer, all layers side by side."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, leaky_relu, normalize

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.ops.propagation import SparseRows, propagate
from recsys.retrieval.dimension_shards import refuse_ranks
from recsys.retrieval.encoder import Encoder, EncoderConfig, graph_of

SLOPE = 0.2
"""Of the leaky ReLU below zero: TensorFlow's, with which the paper's program was run."""


@dataclass(frozen=True, kw_only=True)
class NGCFConfig(EncoderConfig):
    """Defaults of the paper. What is scored is `embedding_dim` times (layers + 1) wide; one rank only."""

    num_layers: int = 3
    dropout: float = 0.1  # of messages, after each layer

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_layers < 1:
            raise ConfigError(f"retrieval.model.num_layers={self.num_layers}: must be 1 or more.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"retrieval.model.dropout={self.dropout}: must lie in [0, 1).")

    def build(self, interactions: Interactions, device: torch.device) -> Encoder:
        """The encoder over the graph of these interactions."""
        refuse_ranks("ngcf")
        return NGCF(self, graph_of(interactions).to(device)).to(device)


class NGCF(Encoder):
    """E' = leaky_relu((A E + E) W + b + (A E * E) V + c), scored as [E0, E1 / |E1|, …].

    Source: Wang et al., Neural graph collaborative filtering, SIGIR 2019, arXiv:1905.08108, eq. 7-9. Regularisation is
    that of layer 0 (`retrieval.regularizer`), where the authors take all layers.
    """

    def __init__(self, config: NGCFConfig, adjacency: SparseRows) -> None:
        super().__init__()
        self._adjacency, self._dropout = adjacency, config.dropout
        width = config.embedding_dim
        self.sums = nn.ModuleList(_linear(width) for _ in range(config.num_layers))
        self.products = nn.ModuleList(_linear(width) for _ in range(config.num_layers))

    def forward(self, nodes: Tensor) -> Tensor:
        """Return all layers side by side, float32 (N, d (K + 1))."""
        once = torch.tensor([0.0, 1.0], device=nodes.device)
        layers = [nodes]
        for of_sum, of_product in zip(self.sums, self.products, strict=True):
            messages = propagate(nodes, once, self._adjacency)
            nodes = leaky_relu(of_sum(messages + nodes) + of_product(messages * nodes), SLOPE)
            nodes = dropout(nodes, self._dropout, self.training)
            layers.append(normalize(nodes, dim=1))
        return torch.cat(layers, dim=1)

    def fold_in(self, nodes: Tensor) -> Tensor:
        """The layers are not linear, so that a new node's have no such form: he gets what his items are scored by."""
        degrees = self._adjacency.offsets.diff().clamp(min=1).float()
        folded: Tensor = self(nodes) * degrees.rsqrt().unsqueeze(1)
        return folded


def _linear(width: int) -> nn.Linear:
    layer = nn.Linear(width, width)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
