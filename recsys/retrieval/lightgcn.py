"""LightGCN: the weighted mean of node embeddings propagated 0 to K times; matrix factorisation with K = 0."""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.ops.propagation import SparseRows, propagate, propagate_rows
from recsys.retrieval.encoder import Encoded, Encoder, EncoderConfig, graph_of


class LayerWeights(Enum):
    """How layers are weighed."""

    MEAN = "mean"  # all layers alike, the embeddings themselves being layer 0
    WITHOUT_INPUT = "without_input"  # all layers alike but layer 0, which SimGCL leaves out
    LEARNED = "learned"  # from the mean on


class Storage(Enum):
    """Type of the layers in memory; sums are float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, kw_only=True)
class LightGCNConfig(EncoderConfig):
    """Defaults of the paper: 64 wide, 3 layers, their mean."""

    num_layers: int = 3  # 0: matrix factorisation
    layer_weights: LayerWeights = LayerWeights.MEAN
    storage: Storage = Storage.FLOAT32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_layers < 0:
            raise ConfigError(f"retrieval.model.num_layers={self.num_layers}: must be 0 or more.")
        if self.num_layers == 0 and self.layer_weights is LayerWeights.WITHOUT_INPUT:
            raise ConfigError(
                "retrieval.model.layer_weights=WITHOUT_INPUT with num_layers=0 leaves nothing. Set num_layers to 1 or "
                "more, or layer_weights to MEAN."
            )

    def build(self, interactions: Interactions, device: torch.device) -> Encoder:
        """The encoder over the graph of these interactions."""
        return LightGCN(self, graph_of(interactions).to(device))


class LightGCN(Encoder):
    """Source: He et al., LightGCN, SIGIR 2020, arXiv:2002.02126, eq. 3-8. No self loops, no transformation."""

    weights: Tensor

    def __init__(self, config: LightGCNConfig, adjacency: SparseRows) -> None:
        super().__init__()
        self.adjacency = adjacency
        self._dtype = torch.bfloat16 if config.storage is Storage.BFLOAT16 else torch.float32
        # Converted once, not at every product; what folds in stays float32.
        self._stored = adjacency.to(adjacency.values.device, self._dtype)
        weights = torch.ones(config.num_layers + 1)
        if config.layer_weights is LayerWeights.WITHOUT_INPUT:
            weights[0] = 0
        weights = weights / weights.sum()
        if config.layer_weights is LayerWeights.LEARNED:
            self.weights = nn.Parameter(weights)
        else:
            self.register_buffer("weights", weights, persistent=False)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return the weighted sum of layers, float32 (N, d)."""
        if self.weights.numel() == 1:
            return nodes * self.weights
        return propagate(nodes.to(self._dtype), self.weights, self._stored).float()

    def at(self, nodes: Tensor, places: Tensor) -> Encoded:
        """Without sums over nodes that the batch lacks."""
        return Encoded(*propagate_rows(nodes, self.weights, self._stored, places, self._dtype))

    def fold_in(self, nodes: Tensor) -> Tensor:
        """Layer k + 1 of a new node is made of layer k of its neighbours; it has no layer 0 of its own.

        A model without layers has none to pass on: a new node then is what its neighbours' embeddings say.
        """
        passed_on = self.weights.detach()[1:] if self.weights.numel() > 1 else torch.ones(1, device=nodes.device)
        degrees = self.adjacency.offsets.diff().clamp(min=1).float()
        return propagate(nodes, passed_on, self.adjacency) * degrees.rsqrt().unsqueeze(1)
