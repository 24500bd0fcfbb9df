"""FinalNet: layers that add the products of their halves, in one stream or two; two teach each other.

Source: Zhu et al., FINAL: Factorized Interaction Layer for CTR Prediction, SIGIR 2023. Numeric columns enter every
stream beside the embeddings and are not gated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as apply_linear

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.models.features import check_at_least, check_dropout, check_units, embedded, equal_width, total_width
from recsys.models.layers import Dropout, linear


class Blocks(Enum):
    """How many streams there are."""

    ONE = "1B"  # FinalNet-1B: the first stream's logit
    TWO = "2B"  # FinalNet-2B: the mean of two logits, each of which also learns the mean's probability


@dataclass(frozen=True, kw_only=True)
class FinalNetConfig:
    """Defaults: FinalNet-2B, the best of BARS on frappe_x1, save for the width, which is that of criteo_x4."""

    embedding_dim: int = 16
    blocks: Blocks = Blocks.TWO
    field_gate: bool = True  # the first stream also reads the embeddings times gates
    batch_norm: bool = True  # batch normalisation before each ReLU
    block1_units: list[int] = field(default_factory=lambda: [400, 400])  # widths of the first stream's layers, even
    block1_dropout: float = 0.1  # share of the first stream's units that a training step drops
    block2_units: list[int] = field(default_factory=lambda: [400])  # of the second stream; unused with ONE
    block2_dropout: float = 0.1

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        for key, units in (("model.block1_units", self.block1_units), ("model.block2_units", self.block2_units)):
            check_units(key, units)
            if any(width % 2 for width in units):
                raise ConfigError(f"{key}={units}: a layer multiplies its two halves, so each width must be even.")
        check_dropout("model.block1_dropout", self.block1_dropout)
        check_dropout("model.block2_dropout", self.block2_dropout)

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column, `embedding_dim` wide."""
        return embedded(categorical, self.embedding_dim)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`. Widths may differ between features, save under `field_gate`."""
        width = total_width(features, model="finalnet")
        gate: nn.Module = nn.Identity()
        if self.field_gate:
            gate = FieldGate(len(features), equal_width(features, model="finalnet with field_gate"))
        return (
            OneStream(self, gate, width, num_dense)
            if self.blocks is Blocks.ONE
            else TwoStreams(self, gate, width, num_dense)
        )


class FieldGate(nn.Module):
    """[E; E * G], G = W E + b: one number for each field and position, linear in the other fields at that position.

    W begins at 0 and b at 1, so that training begins with the embeddings twice.
    """

    def __init__(self, num_fields: int, embedding_dim: int) -> None:
        super().__init__()
        self.num_fields = num_fields
        self.embedding_dim = embedding_dim
        self.weight = nn.Parameter(torch.zeros(num_fields, num_fields))
        self.bias = nn.Parameter(torch.ones(num_fields))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map (B, F * d) to (B, 2 * F * d)."""
        vectors = embeddings.view(-1, self.num_fields, self.embedding_dim)
        gates = apply_linear(vectors.transpose(1, 2), self.weight, self.bias).transpose(1, 2)
        return torch.cat([embeddings, (vectors * gates.to(vectors.dtype)).flatten(1)], 1)


class FactorizedInteraction(nn.Module):
    """[h_2; h_1 * h_2] with [h_2; h_1] = W x + b: half the units are linear, half quadratic in x."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.linear = linear(input_dim, output_dim)
        self.num_linear = output_dim // 2

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (B, input_dim) to (B, output_dim)."""
        hidden = self.linear(inputs)
        return torch.cat([hidden[:, : self.num_linear], hidden[:, : self.num_linear] * hidden[:, self.num_linear :]], 1)


class Block(nn.Module):
    """Layers, each FactorizedInteraction, BatchNorm (if asked for), ReLU, Dropout; then one linear unit."""

    def __init__(self, input_dim: int, units: Sequence[int], *, batch_norm: bool, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in zip([input_dim, *units], units, strict=False):
            layers.append(FactorizedInteraction(width_in, width_out))
            if batch_norm:
                layers.append(nn.BatchNorm1d(width_out))
            layers.append(nn.ReLU())
            if dropout > 0:
                layers.append(Dropout(dropout))
        self.layers = nn.Sequential(*layers)
        self.output = linear(units[-1], 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (B, input_dim) to logits, float32 (B,)."""
        logits: Tensor = self.output(self.layers(inputs))
        return logits.squeeze(1).float()


def first_block(config: FinalNetConfig, width: int, num_dense: int) -> Block:
    """The block that reads what may be gated."""
    gated_width = 2 * width if config.field_gate else width
    return Block(
        gated_width + num_dense, config.block1_units, batch_norm=config.batch_norm, dropout=config.block1_dropout
    )


class OneStream(nn.Module):
    """logit = block_1([gate(embeddings); dense])."""

    has_dense: Final[bool]

    def __init__(self, config: FinalNetConfig, gate: nn.Module, embeddings_width: int, num_dense: int) -> None:
        super().__init__()
        self.has_dense = num_dense > 0
        self.gate = gate
        self.block1 = first_block(config, embeddings_width, num_dense)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, sum of widths)."""
        inputs = self.gate(embeddings)
        if self.has_dense:
            inputs = torch.cat([inputs, dense], 1)
        logits: Tensor = self.block1(inputs)
        return logits


class TwoStreams(nn.Module):
    """logit = (y_1 + y_2) / 2, y_1 = block_1([gate(embeddings); dense]), y_2 = block_2([embeddings; dense])."""

    has_dense: Final[bool]

    def __init__(self, config: FinalNetConfig, gate: nn.Module, embeddings_width: int, num_dense: int) -> None:
        super().__init__()
        self.has_dense = num_dense > 0
        self.gate = gate
        self.block1 = first_block(config, embeddings_width, num_dense)
        self.block2 = Block(
            embeddings_width + num_dense,
            config.block2_units,
            batch_norm=config.batch_norm,
            dropout=config.block2_dropout,
        )

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), in evaluation; while training (B, 3): logits, y_1, y_2.

        Args:
            dense: (B, num_dense).
            embeddings: (B, sum of widths).
        """
        inputs1, inputs2 = self.gate(embeddings), embeddings
        if self.has_dense:
            inputs1, inputs2 = torch.cat([inputs1, dense], 1), torch.cat([inputs2, dense], 1)
        logits1, logits2 = self.block1(inputs1), self.block2(inputs2)
        logits: Tensor = 0.5 * (logits1 + logits2)
        if self.training:
            return torch.stack([logits, logits1, logits2], 1)
        return logits
