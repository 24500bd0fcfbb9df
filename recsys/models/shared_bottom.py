"""Shared bottom: one MLP whose output the towers of all tasks read; the baseline of models of several tasks.

Source: Caruana, Multitask learning, Machine Learning 1997; as drawn in Ma et al., KDD 2018, figure 1 (a).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from recsys.core.specs import FeatureSpec
from recsys.models.features import check_at_least, check_dropout, check_units, embedded, total_width
from recsys.models.layers import MLP
from recsys.models.towers import Towers


@dataclass(frozen=True, kw_only=True)
class SharedBottomConfig:
    """Learns all labels of the schema, or one alone."""

    embedding_dim: int = 16
    bottom_units: list[int] = field(default_factory=lambda: [400, 400])  # widths of the MLP that all tasks share
    tower_units: list[int] = field(default_factory=lambda: [64])  # widths of each task's own
    batch_norm: bool = True  # batch normalisation before each ReLU
    dropout: float = 0.1  # share of hidden units that a training step drops

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        check_units("model.bottom_units", self.bottom_units)
        check_units("model.tower_units", self.tower_units)
        check_dropout("model.dropout", self.dropout)

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column, `embedding_dim` wide."""
        return embedded(categorical, self.embedding_dim)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head; see `ModelConfig.build`. Widths may differ between features."""
        return self.build_tasks(features, num_dense, 1)

    def build_tasks(self, features: Sequence[FeatureSpec], num_dense: int, num_tasks: int) -> nn.Module:
        """The head; see `MultiTask.build_tasks`."""
        return SharedBottom(self, total_width(features, model="shared_bottom"), num_dense, num_tasks)


class SharedBottom(nn.Module):
    """logit_t = tower_t(MLP([embeddings; dense]))."""

    has_dense: Final[bool]
    num_tasks: Final[int]

    def __init__(self, config: SharedBottomConfig, embeddings_width: int, num_dense: int, num_tasks: int) -> None:
        super().__init__()
        self.has_dense, self.num_tasks = num_dense > 0, num_tasks
        width, batch_norm, dropout = embeddings_width + num_dense, config.batch_norm, config.dropout
        self.bottom = MLP(width, config.bottom_units, batch_norm=batch_norm, dropout=dropout)
        self.towers = Towers(
            config.bottom_units[-1], config.tower_units, num_tasks, batch_norm=batch_norm, dropout=dropout
        )

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B, T) or (B,), from dense (B, num_dense) and embeddings (B, sum of widths)."""
        inputs = torch.cat([embeddings, dense], 1) if self.has_dense else embeddings
        logits: Tensor = self.towers([self.bottom(inputs)] * self.num_tasks)
        return logits
