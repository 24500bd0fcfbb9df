"""How crosses and an MLP are joined to one logit; DCN and the forms of DCN V2 share it.

Source: Wang et al., DCN V2, WWW 2021, arXiv:2008.13535, section 3.3.
"""

from enum import Enum
from typing import Final, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as apply_linear

from recsys.models.layers import MLP, linear


class Structure(Enum):
    """How crosses and MLP are joined."""

    PARALLEL = "parallel"  # Linear([x_L; MLP(x_0)])
    STACKED = "stacked"  # Linear(MLP(x_L))


class MLPConfig(Protocol):
    """What a model's configuration says of its MLP."""

    @property
    def hidden_units(self) -> list[int]:
        """Widths of its hidden layers."""

    @property
    def batch_norm(self) -> bool:
        """Whether each ReLU follows a batch normalisation."""

    @property
    def dropout(self) -> float:
        """Share of hidden units that a training step drops."""


class ParallelCrosses(nn.Module):
    """logit = Linear([x_L; MLP(x_0)]) with x_0 = [embeddings; dense] and x_L its crosses.

    Without hidden units there is no MLP: Linear(x_L).
    """

    has_dense: Final[bool]
    has_mlp: Final[bool]

    def __init__(self, config: MLPConfig, cross: nn.Module, width: int, num_dense: int) -> None:
        """Take `cross`, which maps x_0 of shape (B, width) to x_L; `width` counts the `num_dense` columns."""
        super().__init__()
        self.has_dense = num_dense > 0
        self.has_mlp = len(config.hidden_units) > 0
        self.width = width
        self.cross = cross
        self.mlp = (
            MLP(width, config.hidden_units, batch_norm=config.batch_norm, dropout=config.dropout)
            if config.hidden_units
            else nn.Identity()
        )
        self.output = linear(width + (config.hidden_units[-1] if config.hidden_units else 0), 1)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, sum of widths)."""
        inputs = torch.cat([embeddings, dense], 1) if self.has_dense else embeddings
        # The output layer is applied in two parts, which spares a copy of both and of their gradients.
        weight = self.output.weight
        logits = apply_linear(self.cross(inputs), weight[:, : self.width], self.output.bias)
        if self.has_mlp:
            logits = logits + apply_linear(self.mlp(inputs), weight[:, self.width :])
        return logits.squeeze(1).float()


class StackedCrosses(nn.Module):
    """logit = Linear(MLP(x_L)) with x_L the crosses of x_0 = [embeddings; dense]."""

    has_dense: Final[bool]

    def __init__(self, config: MLPConfig, cross: nn.Module, width: int, num_dense: int) -> None:
        """Take `cross`, which maps x_0 of shape (B, width) to x_L; `width` counts the `num_dense` columns."""
        super().__init__()
        self.has_dense = num_dense > 0
        self.cross = cross
        self.mlp = MLP(width, config.hidden_units, batch_norm=config.batch_norm, dropout=config.dropout)
        self.output = linear(config.hidden_units[-1], 1)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, sum of widths)."""
        inputs = torch.cat([embeddings, dense], 1) if self.has_dense else embeddings
        logits: Tensor = self.output(self.mlp(self.cross(inputs)))
        return logits.squeeze(1).float()


HEADS: dict[Structure, type[ParallelCrosses] | type[StackedCrosses]] = {
    Structure.PARALLEL: ParallelCrosses,
    Structure.STACKED: StackedCrosses,
}
"""The head of each structure; all take (config, cross, width, num_dense)."""
