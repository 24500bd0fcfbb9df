"""MMoE: experts that all tasks share, mixed for each task by a gate of its own.

Source: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts, KDD 2018.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from recsys.core.specs import FeatureSpec
from recsys.models.features import check_at_least, check_units, total_width
from recsys.models.towers import Experts, Gate, TasksConfig, Towers


@dataclass(frozen=True, kw_only=True)
class MMoEConfig(TasksConfig):
    """Learns all labels of the schema, or one alone."""

    num_experts: int = 4
    expert_units: list[int] = field(default_factory=lambda: [256, 128])  # widths of each expert's hidden layers

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("model.num_experts", self.num_experts, 1)
        check_units("model.expert_units", self.expert_units)

    def build_tasks(self, features: Sequence[FeatureSpec], num_dense: int, num_tasks: int) -> nn.Module:
        """The head; see `MultiTask.build_tasks`."""
        return MMoE(self, total_width(features, model="mmoe"), num_dense, num_tasks)


class MMoE(nn.Module):
    """logit_t = tower_t(sum over e of softmax(W_t x)_e expert_e(x)), x = [embeddings; dense]."""

    has_dense: Final[bool]

    def __init__(self, config: MMoEConfig, embeddings_width: int, num_dense: int, num_tasks: int) -> None:
        super().__init__()
        self.has_dense = num_dense > 0
        width, batch_norm, dropout = embeddings_width + num_dense, config.batch_norm, config.dropout
        self.experts = Experts(width, config.expert_units, config.num_experts, batch_norm=batch_norm, dropout=dropout)
        self.gates = nn.ModuleList(Gate(width, config.num_experts) for _ in range(num_tasks))
        self.towers = Towers(
            config.expert_units[-1], config.tower_units, num_tasks, batch_norm=batch_norm, dropout=dropout
        )

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B, T) or (B,), from dense (B, num_dense) and embeddings (B, sum of widths)."""
        inputs = torch.cat([embeddings, dense], 1) if self.has_dense else embeddings
        experts = self.experts(inputs)
        mixed: list[Tensor] = []
        for gate in self.gates:
            mixed.append(gate(inputs, experts))
        logits: Tensor = self.towers(mixed)
        return logits
