"""LightGCN that trains on what a batch reaches: some neighbours of its rows, some neighbours of these, and so on.

A step looks up and propagates the nodes that it reaches instead of all, which pays where a graph has far more nodes
than a batch reaches. Ranking still propagates over all nodes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.ops.hashing import mix64
from recsys.ops.propagation import SparseRows
from recsys.retrieval.encoder import Encoded, Encoder, Reached, graph_of
from recsys.retrieval.lightgcn import LightGCN, LightGCNConfig


@dataclass(frozen=True, kw_only=True)
class SampledLightGCNConfig(LightGCNConfig):
    """As LightGCN, exactly so where no node has more than `fan_out` neighbours.

    Hard negatives are chosen by scores of the whole graph, so that `retrieval/sampler=hard` gains nothing by it.
    """

    fan_out: int = 10  # neighbours of a node in a layer, at most

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_layers < 1:
            raise ConfigError(f"retrieval.model.num_layers={self.num_layers}: layers are sampled, so there must be 1.")
        if self.fan_out < 1:
            raise ConfigError(f"retrieval.model.fan_out={self.fan_out}: must be 1 or more.")

    @property
    def looks_up_part(self) -> str:
        """What a batch reaches."""
        return "retrieval/model=lightgcn_sampled"

    def build(self, interactions: Interactions, device: torch.device) -> Encoder:
        """The encoder over the graph of these interactions."""
        return SampledLightGCN(self, graph_of(interactions).to(device))


class SampledLightGCN(LightGCN):
    """Source: Hamilton et al., GraphSAGE, NeurIPS 2017, arXiv:1706.02216 (neighbour sampling); sums are unbiased."""

    def __init__(self, config: SampledLightGCNConfig, adjacency: SparseRows) -> None:
        super().__init__(config, adjacency)
        self._fan_out = config.fan_out

    def reached(self, places: Tensor) -> Reached:
        """Draw neighbours, layer by layer. The batch itself is the seed: alike on all ranks and after a restart."""
        generator = torch.Generator(places.device).manual_seed(int(mix64(places).sum()))
        nodes, batch = torch.unique(places, return_inverse=True)
        layers, levels = [], []
        for _ in range(self.weights.numel() - 1):
            matrix = sample_neighbors(self.adjacency, nodes, self._fan_out, generator)
            outer = torch.unique(torch.cat([nodes, matrix.columns]))
            columns = torch.searchsorted(outer, matrix.columns)
            layers.append(SparseRows(matrix.offsets, columns, matrix.values))
            levels.append(torch.searchsorted(outer, nodes))
            nodes = outer
        return Reached(nodes, batch, layers, levels)

    def at_reached(self, nodes: Tensor, reached: Reached) -> Encoded:
        """Horner's rule from the outermost nodes inwards; each layer's sum is over its own draw of neighbours."""
        initial, weights = nodes.to(self._dtype), self.weights.to(self._dtype)
        total = initial * weights[-1]
        for weight, layer, level in zip(weights[:-1].flip(0), reached.layers[::-1], reached.levels[::-1], strict=True):
            initial = initial.index_select(0, level)
            total = layer.product(total) + weight * initial
        places = reached.batch
        final = total.float().index_select(0, places)
        for level in reached.levels:
            places = level[places]
        return Encoded(nodes.index_select(0, places), final)


def sample_neighbors(adjacency: SparseRows, nodes: Tensor, count: int, generator: torch.Generator) -> SparseRows:
    """Rows of a matrix with at most `count` of their entries, scaled up so that expected sums are those of all.

    Entries are taken at equal steps from a random start: none twice, each alike often, in time of what is taken. Of a
    row with no more than `count`, all are.

    Args:
        adjacency: on the device of `nodes`.
        nodes: int64 (n,), rows wanted.
        count: 1 or more.
        generator: on that device.

    Returns:
        n rows over the same columns, int64.
    Source: Madow and Madow, On the theory of systematic sampling, 1944.
    """
    degrees = adjacency.offsets.diff().long()[nodes]
    taken = degrees.clamp(max=count)
    offsets = torch.nn.functional.pad(taken.cumsum(0), (1, 0))
    rows = torch.repeat_interleave(torch.arange(nodes.numel(), device=nodes.device), taken)
    place = torch.arange(rows.numel(), device=nodes.device) - offsets[rows]
    # A start of 24 bits: its sum with a place is exact in float64, so that no two places round to one.
    start = torch.rand(nodes.numel(), generator=generator, device=nodes.device).double()
    step = (degrees.double() / taken)[rows]
    entries = adjacency.offsets.long()[nodes][rows] + ((place + start[rows]) * step).long()
    return SparseRows(offsets, adjacency.columns[entries].long(), adjacency.values[entries] * step.float())
