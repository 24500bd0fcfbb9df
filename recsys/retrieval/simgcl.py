"""SimGCL: LightGCN without layer 0, whose nodes stay themselves when every layer is shaken."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.ops.propagation import SparseRows
from recsys.retrieval.dimension_shards import row_squares
from recsys.retrieval.encoder import Encoded, Encoder, Gather, graph_of
from recsys.retrieval.lightgcn import LayerWeights, LightGCN, LightGCNConfig


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(LightGCNConfig):
    """What SimGCL and XSimGCL have in common.

    Their contrast_weight is for sparse graphs. On dense ones, whose users share most items, less helped here.
    """

    layer_weights: LayerWeights = LayerWeights.WITHOUT_INPUT
    contrast_weight: float = 0.5  # of the contrastive loss (the papers' lambda)
    noise: float = 0.1  # length of what is added to each node in each layer (epsilon)
    temperature: float = 0.2  # of the contrast; cosines are divided by it

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_layers < 1:
            raise ConfigError(f"retrieval.model.num_layers={self.num_layers}: noise is of layers, so there must be 1.")
        for name in ("contrast_weight", "noise"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"retrieval.model.{name}={getattr(self, name)}: must be 0 or more.")
        if not self.temperature > 0:
            raise ConfigError(f"retrieval.model.temperature={self.temperature}: must be above 0.")


@dataclass(frozen=True, kw_only=True)
class SimGCLConfig(ContrastiveConfig):
    """The paper's for Yelp2018, 3 layers; a step propagates three times forward, once backward."""

    def build(self, interactions: Interactions, device: torch.device) -> Encoder:
        """The encoder over the graph of these interactions."""
        return SimGCL(self, graph_of(interactions).to(device))


class SimGCL(LightGCN):
    """Source: Yu et al., Are graph augmentations necessary?, SIGIR 2022, arXiv:2112.08679, eq. 7-9."""

    def __init__(self, config: SimGCLConfig, adjacency: SparseRows) -> None:
        super().__init__(config, adjacency)
        self._weight, self._noise, self._temperature = config.contrast_weight, config.noise, config.temperature

    def auxiliary(self, encoded: Encoded, users: Tensor, items: Tensor, gather: Gather) -> Tensor | None:
        """Contrast two views of the batch's users, and two of its items."""
        views = []
        for _ in range(2):
            shaken = weighted(shaken_layers(encoded.initial, self.adjacency, len(self.weights) - 1, self._noise), self)
            # Noise is constant in the weights, so the gradient of a view is that of the layers without noise.
            views.append(encoded.final + (shaken - encoded.final).detach())
        return self._weight * contrast(views[0], views[1], (users, items), self._temperature, gather)


@torch.no_grad()
def shaken_layers(nodes: Tensor, adjacency: SparseRows, count: int, noise: float) -> list[Tensor]:
    """Layers 0 to `count`, each made of the one before with noise added, (N, d) each; without gradient.

    Noise of a node is uniform in direction of [0, 1)^d, `noise` long over all columns, with the signs of the node.
    """
    layers = [nodes]
    for _ in range(count):
        layer = adjacency.product(layers[-1])
        drawn = torch.rand_like(layer)
        layers.append(layer + noise * layer.sign() * drawn * row_squares(drawn).clamp(min=1e-24).rsqrt())
    return layers


def weighted(layers: list[Tensor], encoder: LightGCN) -> Tensor:
    """The sum of layers as the encoder weighs them, without gradient, (N, d)."""
    weights = encoder.weights.detach()
    return torch.stack([weight * layer for weight, layer in zip(weights, layers, strict=True)]).sum(0)


def contrast(
    first: Tensor, second: Tensor, batch: tuple[Tensor, Tensor], temperature: float, gather: Callable[[Tensor], Tensor]
) -> Tensor:
    """InfoNCE of two views, mean over the distinct users plus mean over the distinct items, times the batch's rows.

    Args:
        first, second: (N, d), this rank's columns.
        batch: node numbers of users and of items, int64 (B,) each.
        temperature: cosines are divided by it.
        gather: this rank's columns to all columns.
    """
    total = first.new_zeros(())
    for nodes in batch:
        distinct = nodes.unique()
        views = [normalize(gather(view.index_select(0, distinct)), dim=1) for view in (first, second)]
        targets = torch.arange(len(distinct), device=distinct.device)
        total = total + cross_entropy(views[0] @ views[1].t() / temperature, targets)
    return total * len(batch[0])
