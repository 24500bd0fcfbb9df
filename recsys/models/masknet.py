"""MaskNet: blocks that multiply their input by a mask, which a small network computes from the row's embeddings.

Source: Wang, She and Zhang, DLP-KDD 2021, arXiv:2102.07619.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.models.features import check_at_least, check_dropout, check_units, embedded, equal_width, total_width
from recsys.models.layers import MLP, Dropout, linear


class Structure(Enum):
    """How blocks are joined."""

    SERIAL = "serial"  # each block reads the one before; their widths are hidden_units
    PARALLEL = "parallel"  # all blocks read the embeddings; an MLP of hidden_units reads all blocks


@dataclass(frozen=True, kw_only=True)
class MaskNetConfig:
    """Defaults: the best of BARS on frappe_x1, save for the width, which is that of criteo_x4."""

    embedding_dim: int = 16
    structure: Structure = Structure.PARALLEL
    num_blocks: int = 3  # of PARALLEL; SERIAL has one a hidden layer
    block_units: int = 50  # width of what a block of PARALLEL answers
    hidden_units: list[int] = field(default_factory=lambda: [400, 400, 400])  # see `Structure`
    mask_ratio: float = 2.0  # hidden units of a mask's network per value that it masks ("reduction ratio" in the paper)
    embedding_norm: bool = False  # layer normalisation of each embedding before blocks mask it; the paper has it
    dropout: float = 0.1  # share of the hidden units, of blocks and MLP, that a training step drops

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        check_at_least("model.num_blocks", self.num_blocks, 1)
        # Layer normalisation makes one number alone a constant.
        check_at_least("model.block_units", self.block_units, 2)
        check_units("model.hidden_units", self.hidden_units)
        check_dropout("model.dropout", self.dropout)
        if self.structure is Structure.SERIAL and min(self.hidden_units) < 2:
            raise ConfigError(
                f"model.hidden_units={self.hidden_units}: with model.structure=serial each is a normalised block's "
                "width, and one number normalised is a constant. Set each to 2 or more."
            )
        if self.embedding_norm:
            check_at_least("model.embedding_dim (with model.embedding_norm=true)", self.embedding_dim, 2)
        if not self.mask_ratio > 0:
            raise ConfigError(f"model.mask_ratio={self.mask_ratio}: a mask needs hidden units, so set it above 0.")

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column, `embedding_dim` wide."""
        return embedded(categorical, self.embedding_dim)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`. Widths may differ between features, save under `embedding_norm`."""
        width = total_width(features, model="masknet")
        norm: nn.Module = nn.Identity()
        if self.embedding_norm:
            norm = EmbeddingNorm(len(features), equal_width(features, model="masknet with embedding_norm"))
        serial = self.structure is Structure.SERIAL
        return SerialMaskNet(self, norm, width, num_dense) if serial else ParallelMaskNet(self, norm, width, num_dense)


class EmbeddingNorm(nn.Module):
    """Layer normalisation of each of F embeddings by itself, each with its own scales and shifts."""

    def __init__(self, num_fields: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_fields, embedding_dim))
        self.bias = nn.Parameter(torch.zeros(num_fields, embedding_dim))
        self.num_fields = num_fields
        self.embedding_dim = embedding_dim

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map (B, F * d) to the same shape."""
        vectors = embeddings.view(-1, self.num_fields, self.embedding_dim)
        return (layer_norm(vectors, [self.embedding_dim]) * self.weight + self.bias).flatten(1)


class MaskBlock(nn.Module):
    """ReLU(LayerNorm(W (mask * inputs))), mask = V_2 ReLU(V_1 row + b_1) + b_2 (the paper's MaskBlock)."""

    def __init__(self, row_width: int, input_dim: int, output_dim: int, config: MaskNetConfig) -> None:
        super().__init__()
        num_units = max(1, int(input_dim * config.mask_ratio))
        self.aggregation = linear(row_width, num_units)
        self.projection = linear(num_units, input_dim)
        self.hidden = linear(input_dim, output_dim, bias=False)  # the normalisation shifts
        self.norm = nn.LayerNorm(output_dim)
        self.dropout = Dropout(config.dropout) if config.dropout > 0 else nn.Identity()

    def forward(self, row: Tensor, inputs: Tensor) -> Tensor:
        """Map the row (B, row_width) and what it masks (B, input_dim) to (B, output_dim)."""
        mask = self.projection(torch.relu(self.aggregation(row)))
        hidden: Tensor = self.dropout(torch.relu(self.norm(self.hidden(mask.to(inputs.dtype) * inputs))))
        return hidden


class SerialMaskNet(nn.Module):
    """logit = Linear(block_n(row, … block_1(row, norm(row)))), row = [embeddings; dense]."""

    has_dense: Final[bool]

    def __init__(self, config: MaskNetConfig, norm: nn.Module, embeddings_width: int, num_dense: int) -> None:
        super().__init__()
        self.has_dense = num_dense > 0
        self.norm = norm
        width = embeddings_width + num_dense
        pairs = zip([width, *config.hidden_units], config.hidden_units, strict=False)
        self.blocks = nn.ModuleList(MaskBlock(width, width_in, width_out, config) for width_in, width_out in pairs)
        self.output = linear(config.hidden_units[-1], 1)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, sum of widths)."""
        row, hidden = embeddings, self.norm(embeddings)
        if self.has_dense:
            row, hidden = torch.cat([row, dense], 1), torch.cat([hidden, dense], 1)
        for block in self.blocks:
            hidden = block(row, hidden)
        logits: Tensor = self.output(hidden)
        return logits.squeeze(1).float()


class ParallelMaskNet(nn.Module):
    """logit = Linear(MLP([block_1(row, norm(row)); … block_n(row, norm(row))])), row = [embeddings; dense]."""

    has_dense: Final[bool]

    def __init__(self, config: MaskNetConfig, norm: nn.Module, embeddings_width: int, num_dense: int) -> None:
        super().__init__()
        self.has_dense = num_dense > 0
        self.norm = norm
        width = embeddings_width + num_dense
        self.blocks = nn.ModuleList(
            MaskBlock(width, width, config.block_units, config) for _ in range(config.num_blocks)
        )
        width = config.num_blocks * config.block_units
        self.mlp = MLP(width, config.hidden_units, batch_norm=False, dropout=config.dropout)
        self.output = linear(config.hidden_units[-1], 1)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B,), from dense (B, num_dense) and embeddings (B, sum of widths)."""
        row, hidden = embeddings, self.norm(embeddings)
        if self.has_dense:
            row, hidden = torch.cat([row, dense], 1), torch.cat([hidden, dense], 1)
        answers: list[Tensor] = []
        for block in self.blocks:
            answers.append(block(row, hidden))
        logits: Tensor = self.output(self.mlp(torch.cat(answers, 1)))
        return logits.squeeze(1).float()
