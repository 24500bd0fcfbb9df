"""DCN: crosses with weight vectors beside an MLP.

Source: Wang et al., Deep & Cross Network, ADKDD 2017, arXiv:1708.05123.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as apply_linear

from recsys.core.specs import FeatureSpec
from recsys.models.cross import ParallelCrosses
from recsys.models.features import check_at_least, check_dropout, check_units, embedded, total_width


@dataclass(frozen=True, kw_only=True)
class DCNConfig:
    """Defaults: the best of BARS on frappe_x1, save for the width, which is that of criteo_x4."""

    embedding_dim: int = 16
    num_cross_layers: int = 3
    # widths of the MLP's hidden layers; [] leaves the MLP out: BARS' model CrossNet
    hidden_units: list[int] = field(default_factory=lambda: [400, 400, 400])
    batch_norm: bool = True  # batch normalisation before each ReLU of the MLP
    dropout: float = 0.2  # share of the MLP's hidden units that a training step drops

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        check_at_least("model.num_cross_layers", self.num_cross_layers, 1)
        if self.hidden_units:
            check_units("model.hidden_units", self.hidden_units)
        check_dropout("model.dropout", self.dropout)

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column, `embedding_dim` wide."""
        return embedded(categorical, self.embedding_dim)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`. Widths may differ between features."""
        width = total_width(features, model="dcn") + num_dense
        return ParallelCrosses(self, CrossNet(width, self.num_cross_layers), width, num_dense)


class CrossNet(nn.Module):
    """Cross layers of rank one: x_{l+1} = x_0 (w_l · x_l) + b_l + x_l, for all layers at once.

    Every x_l is s_l x_0 + c_l: c_l, the sum of the biases below, is the same for all rows, and s_l one number a row,
    s_{l+1} = s_l + s_l (w_l · x_0) + w_l · c_l. So one matrix product yields what all layers need, and no x_l between
    the first and the last is written.
    Source: Wang et al., ADKDD 2017, arXiv:1708.05123, eq. 3; that x_L is x_0 times a number, were it not for the
    biases: Lian et al., KDD 2018, arXiv:1803.05170, theorem 2.1.
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.num_layers = num_layers
        # Xavier-normal as a linear layer from `width` to one unit
        self.weights = nn.Parameter(torch.randn(num_layers, width) * (2 / (width + 1)) ** 0.5)
        self.biases = nn.Parameter(torch.zeros(num_layers, width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map x_0 of shape (B, width) to x_L of the same shape and type."""
        products = apply_linear(inputs, self.weights).to(inputs.dtype)
        sums = torch.cumsum(self.biases, 0)
        shifts = (self.weights * (sums - self.biases)).sum(1)
        scale = torch.ones_like(products[:, 0])
        for layer in range(self.num_layers):
            scale = scale + scale * products[:, layer] + shifts[layer]
        return inputs * scale.unsqueeze(1) + sums[-1]
