"""XSimGCL: one shaken propagation serves the ranking and, by one of its layers, the contrast."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.ops.propagation import SparseRows, propagate
from recsys.retrieval.encoder import Encoded, Encoder, Gather, graph_of
from recsys.retrieval.lightgcn import LightGCN
from recsys.retrieval.simgcl import ContrastiveConfig, contrast, shaken_layers, weighted


@dataclass(frozen=True, kw_only=True)
class XSimGCLConfig(ContrastiveConfig):
    """The paper's for Yelp2018, 3 layers."""

    contrast_weight: float = 0.2
    noise: float = 0.2
    temperature: float = 0.15
    contrast_layer: int = 1  # l*, compared with what is scored

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.contrast_layer <= self.num_layers:
            raise ConfigError(
                f"retrieval.model.contrast_layer={self.contrast_layer}: must lie in [1, num_layers={self.num_layers}]."
            )

    def build(self, interactions: Interactions, device: torch.device) -> Encoder:
        """The encoder over the graph of these interactions."""
        return XSimGCL(self, graph_of(interactions).to(device))


class XSimGCL(LightGCN):
    """Source: Yu et al., XSimGCL, TKDE 2023, arXiv:2209.02544, eq. 11."""

    def __init__(self, config: XSimGCLConfig, adjacency: SparseRows) -> None:
        super().__init__(config, adjacency)
        self._config = config
        self._shaken_layer = torch.empty(0)  # of this step's forward pass, for its contrast

    def forward(self, nodes: Tensor) -> Tensor:
        """Return the weighted sum of layers, float32 (N, d); of shaken ones while training."""
        clean = super().forward(nodes)
        if not self.training:
            return clean
        layers = shaken_layers(nodes, self.adjacency, self._config.num_layers, self._config.noise)
        self._shaken_layer = layers[self._config.contrast_layer]
        return clean + (weighted(layers, self) - clean).detach()

    def auxiliary(self, encoded: Encoded, users: Tensor, items: Tensor, gather: Gather) -> Tensor | None:
        """Contrast what is scored with one layer."""
        once = torch.zeros(self._config.contrast_layer + 1, device=users.device)
        once[-1] = 1
        clean = propagate(encoded.initial, once, self.adjacency)
        layer = clean + (self._shaken_layer - clean).detach()
        weight, temperature = self._config.contrast_weight, self._config.temperature
        return weight * contrast(encoded.final, layer, (users, items), temperature, gather)
