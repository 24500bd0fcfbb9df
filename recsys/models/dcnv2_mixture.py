"""DCN V2 with cross layers of low rank, one or a gated mixture of several, beside, or below, an MLP.

Source: Wang et al., DCN V2, WWW 2021, arXiv:2008.13535, eq. 2-4. One expert is the low-rank form.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import torch
from torch import Tensor, nn

from recsys.core.specs import FeatureSpec
from recsys.models.cross import HEADS, Structure
from recsys.models.features import check_at_least, check_dropout, check_units, embedded, total_width
from recsys.models.layers import linear


class Subspace(Enum):
    """What an expert does to the `rank` numbers that it projected its input to."""

    LINEAR = "linear"  # nothing: eq. 2, eq. 3
    TANH = "tanh"  # tanh(C tanh(·)): eq. 4


@dataclass(frozen=True, kw_only=True)
class DCNv2MixtureConfig:
    """Defaults: FuxiCTR's rank and experts; the others are the best of BARS for dcnv2 on frappe_x1.

    BARS has no run of a mixture. The width of embeddings is that of criteo_x4.
    """

    embedding_dim: int = 16
    structure: Structure = Structure.PARALLEL
    num_cross_layers: int = 4
    num_experts: int = 4  # 1: no gate
    rank: int = 32  # numbers to which an expert projects its input
    subspace: Subspace = Subspace.TANH
    hidden_units: list[int] = field(default_factory=lambda: [400, 400, 400])  # widths of the MLP's hidden layers
    batch_norm: bool = True  # batch normalisation before each ReLU of the MLP
    dropout: float = 0.4  # share of the MLP's hidden units that a training step drops

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        check_at_least("model.num_cross_layers", self.num_cross_layers, 1)
        check_at_least("model.num_experts", self.num_experts, 1)
        check_at_least("model.rank", self.rank, 1)
        check_units("model.hidden_units", self.hidden_units)
        check_dropout("model.dropout", self.dropout)

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column, `embedding_dim` wide."""
        return embedded(categorical, self.embedding_dim)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`. Widths may differ between features."""
        width = total_width(features, model="dcnv2_mixture") + num_dense
        return HEADS[self.structure](self, CrossNetMixture(self, width), width, num_dense)


class CrossNetMixture(nn.Module):
    """Cross layers that are mixtures of low-rank experts; every layer has its own gate (FuxiCTR: one for all)."""

    def __init__(self, config: DCNv2MixtureConfig, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MixtureLayer(config, width) for _ in range(config.num_cross_layers))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map x_0 of shape (B, width) to x_L of the same shape and type."""
        crossed = inputs
        for layer in self.layers:
            # Converted once, as in `CrossNetV2`: operators of two types at once are slow on a CPU.
            crossed = crossed + inputs * layer(crossed).to(inputs.dtype)
        return crossed


class MixtureLayer(nn.Module):
    """sum over experts i of G_i(x) U_i h_i(x), plus b, with h_i(x) = V_i x or tanh(C_i tanh(V_i x)), G = softmax.

    All V_i are one matrix, and all U_i another: G_i U_i h_i is U_i (G_i h_i), so that the sum over experts is the
    product of [U_1 … U_K] with the gated h one below the other. The gates sum to 1, so b needs none.
    """

    is_gated: Final[bool]

    def __init__(self, config: DCNv2MixtureConfig, width: int) -> None:
        super().__init__()
        self.num_experts = config.num_experts
        self.rank = config.rank
        self.is_gated = config.num_experts > 1
        self.down = linear(width, config.num_experts * config.rank, bias=False)  # V, expert by expert
        self.up = linear(config.num_experts * config.rank, width)  # U beside U, and b
        # each expert's matrix is drawn as a layer of its own, not as a part of one that is larger
        for part in [*self.down.weight.chunk(config.num_experts, 0), *self.up.weight.chunk(config.num_experts, 1)]:
            nn.init.xavier_normal_(part)
        self.gate = linear(width, config.num_experts, bias=False) if self.is_gated else nn.Identity()
        std = (1 / config.rank) ** 0.5  # Xavier-normal of a square matrix
        self.core = (
            nn.Parameter(torch.randn(config.num_experts, config.rank, config.rank) * std)
            if config.subspace is Subspace.TANH
            else None
        )

    def forward(self, crossed: Tensor) -> Tensor:
        """Return what x_0 is multiplied with, (B, width), from x_l of shape (B, width)."""
        hidden = self.down(crossed)
        if self.core is not None:
            inner = torch.tanh(hidden).view(-1, self.num_experts, self.rank).transpose(0, 1)
            # core[i] is C_i transposed: rows times it
            hidden = torch.tanh(torch.bmm(inner, self.core).transpose(0, 1).flatten(1))
        if self.is_gated:
            gates = torch.softmax(self.gate(crossed), 1).to(hidden.dtype).unsqueeze(2)
            hidden = (hidden.view(-1, self.num_experts, self.rank) * gates).flatten(1)
        outputs: Tensor = self.up(hidden)
        return outputs
