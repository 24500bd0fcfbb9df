"""What models of several tasks share: towers, and experts mixed by gates."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from recsys.core.specs import FeatureSpec
from recsys.models.features import check_at_least, check_dropout, check_units, embedded
from recsys.models.layers import MLP, linear


@dataclass(frozen=True, kw_only=True)
class TasksConfig(ABC):
    """What every model of several tasks can be told; see `MultiTask`."""

    embedding_dim: int = 16
    tower_units: list[int] = field(default_factory=lambda: [64])  # widths of each task's own MLP
    batch_norm: bool = True  # batch normalisation before each ReLU
    dropout: float = 0.1  # share of hidden units that a training step drops

    def __post_init__(self) -> None:
        check_at_least("model.embedding_dim", self.embedding_dim, 1)
        check_units("model.tower_units", self.tower_units)
        check_dropout("model.dropout", self.dropout)

    @property
    def labels_nest(self) -> bool:
        """See `MultiTask`."""
        return False

    def features(self, categorical: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """Every column, `embedding_dim` wide."""
        return embedded(categorical, self.embedding_dim)

    def build(self, features: Sequence[FeatureSpec], num_dense: int) -> nn.Module:
        """The head of one task; see `ModelConfig.build`. Widths may differ between features."""
        return self.build_tasks(features, num_dense, 1)

    @abstractmethod
    def build_tasks(self, features: Sequence[FeatureSpec], num_dense: int, num_tasks: int) -> nn.Module:
        """The head; see `MultiTask.build_tasks`."""


class Towers(nn.Module):
    """A small MLP for each task, to its logit."""

    def __init__(
        self, input_dim: int, units: Sequence[int], num_tasks: int, *, batch_norm: bool, dropout: float
    ) -> None:
        super().__init__()
        self.towers = nn.ModuleList(
            MLP(input_dim, units, batch_norm=batch_norm, dropout=dropout) for _ in range(num_tasks)
        )
        self.outputs = nn.ModuleList(linear(units[-1], 1) for _ in range(num_tasks))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Logits float32 (B, T), or (B,) where T is 1, from (B, input_dim) for each of T tasks."""
        logits: list[Tensor] = []
        for task, (tower, output) in enumerate(zip(self.towers, self.outputs, strict=False)):
            logits.append(output(tower(inputs[task])))
        return torch.cat(logits, 1).squeeze(1).float()


class Gate(nn.Module):
    """Softmax weights of experts by a linear map of what a task reads.

    Source: Ma et al., KDD 2018, section 4.2.
    """

    def __init__(self, input_dim: int, num_experts: int) -> None:
        super().__init__()
        self.weights = linear(input_dim, num_experts, bias=False)

    def forward(self, inputs: Tensor, experts: Tensor) -> Tensor:
        """Mix experts (B, E, D) by inputs (B, input_dim) to (B, D)."""
        weights = torch.softmax(self.weights(inputs).float(), 1).to(experts.dtype)
        return (weights.unsqueeze(2) * experts).sum(1)


class Experts(nn.Module):
    """MLPs of one shape that read the same."""

    def __init__(
        self, input_dim: int, units: Sequence[int], num_experts: int, *, batch_norm: bool, dropout: float
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            MLP(input_dim, units, batch_norm=batch_norm, dropout=dropout) for _ in range(num_experts)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (B, input_dim) to (B, E, units[-1])."""
        outputs: list[Tensor] = []
        for expert in self.experts:
            outputs.append(expert(inputs))
        return torch.stack(outputs, 1)
