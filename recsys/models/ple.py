"""PLE: levels of experts that all tasks share beside experts of each task's own, mixed by gates.

Source: Tang et al., Progressive Layered Extraction, RecSys 2020. One level is its CGC.
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
class PLEConfig(TasksConfig):
    """Learns all labels of the schema, or one alone."""

    num_levels: int = 2
    num_shared_experts: int = 2  # at each level
    num_own_experts: int = 2  # of each task, at each level
    expert_units: list[int] = field(default_factory=lambda: [128])  # widths of each expert's hidden layers

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("num_levels", "num_shared_experts", "num_own_experts"):
            check_at_least(f"model.{key}", getattr(self, key), 1)
        check_units("model.expert_units", self.expert_units)

    def build_tasks(self, features: Sequence[FeatureSpec], num_dense: int, num_tasks: int) -> nn.Module:
        """The head; see `MultiTask.build_tasks`."""
        return PLE(self, total_width(features, model="ple"), num_dense, num_tasks)


class Level(nn.Module):
    """A gate for each task over its own and the shared experts, and, but at the last level, one over all of them.

    Each expert and each gate reads what its task's, or the shared, gate of the level below gave.
    """

    has_shared_gate: Final[bool]

    def __init__(self, config: PLEConfig, input_dim: int, num_tasks: int, *, is_last: bool) -> None:
        super().__init__()
        own, shared = config.num_own_experts, config.num_shared_experts
        self.experts = nn.ModuleList(
            Experts(input_dim, config.expert_units, count, batch_norm=config.batch_norm, dropout=config.dropout)
            for count in [own] * num_tasks + [shared]
        )
        self.gates = nn.ModuleList(Gate(input_dim, own + shared) for _ in range(num_tasks))
        self.has_shared_gate = not is_last
        if not is_last:
            self.shared_gate = Gate(input_dim, num_tasks * own + shared)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        """Map (B, input_dim) of each of T tasks, and of what is shared, to (B, expert_units[-1]) of as many."""
        found: list[Tensor] = []
        for i, experts in enumerate(self.experts):
            found.append(experts(inputs[i]))
        mixed: list[Tensor] = []
        for task, gate in enumerate(self.gates):
            mixed.append(gate(inputs[task], torch.cat([found[task], found[-1]], 1)))
        if self.has_shared_gate:
            mixed.append(self.shared_gate(inputs[-1], torch.cat(found, 1)))
        return mixed


class PLE(nn.Module):
    """logit_t = tower_t(level_L(… level_1([embeddings; dense]))_t)."""

    has_dense: Final[bool]
    num_tasks: Final[int]

    def __init__(self, config: PLEConfig, embeddings_width: int, num_dense: int, num_tasks: int) -> None:
        super().__init__()
        self.has_dense, self.num_tasks = num_dense > 0, num_tasks
        width, last = config.expert_units[-1], config.num_levels - 1
        self.levels = nn.ModuleList(
            Level(config, width if i else embeddings_width + num_dense, num_tasks, is_last=i == last)
            for i in range(config.num_levels)
        )
        self.towers = Towers(width, config.tower_units, num_tasks, batch_norm=config.batch_norm, dropout=config.dropout)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """Return logits, float32 (B, T) or (B,), from dense (B, num_dense) and embeddings (B, sum of widths)."""
        inputs = torch.cat([embeddings, dense], 1) if self.has_dense else embeddings
        mixed = [inputs] * (self.num_tasks + 1)
        for level in self.levels:
            mixed = level(mixed)
        logits: Tensor = self.towers(mixed)
        return logits
