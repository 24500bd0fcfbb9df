"""Shared bottom: one MLP whose output the towers of all tasks read; the baseline of models of several tasks.

Source: Caruana, Multitask learning, Machine Learning 1997; as drawn in Ma et al., KDD 2018, figure 1 (a).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from recsys.core.specs import FeatureSpec
from recsys.models.features import check_units, total_width
from recsys.models.layers import MLP
from recsys.models.towers import TasksConfig, Towers


@dataclass(frozen=True, kw_only=True)
class SharedBottomConfig(TasksConfig):
    """Learns all labels of the schema, or one alone."""

    bottom_units: list[int] = field(default_factory=lambda: [400, 400])  # widths of the MLP that all tasks share

    def __post_init__(self) -> None:
        super().__post_init__()
        check_units("model.bottom_units", self.bottom_units)

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
