"""What the second output of an exported model is made of: calibrated probabilities, or the units of numbers."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.core.labels import LabelStatistics


class PlattProbabilities(nn.Module):
    """sigmoid(slope * logit + intercept)."""

    def __init__(self, *, slope: float, intercept: float) -> None:
        super().__init__()
        self.slope = slope
        self.intercept = intercept

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits (B,) to probabilities float32 (B,)."""
        return torch.sigmoid(logits.double() * self.slope + self.intercept).float()


class IsotonicProbabilities(nn.Module):
    """Straight lines between knots, constant beyond the first and the last."""

    knots: Tensor
    rates: Tensor

    def __init__(self, knots: Tensor, rates: Tensor) -> None:
        """`knots` (K,): logits, ascending, distinct; `rates` (K,): their probabilities. K >= 1."""
        super().__init__()
        if knots.numel() == 1:  # a line needs two ends
            knots, rates = torch.cat([knots, knots + 1]), rates.repeat(2)
        self.register_buffer("knots", knots.double())
        self.register_buffer("rates", rates.double())

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits (B,) to probabilities float32 (B,)."""
        x = logits.double().clamp(self.knots[0], self.knots[-1])
        right = torch.searchsorted(self.knots, x).clamp(1, self.knots.numel() - 1)
        low, high = self.knots[right - 1], self.knots[right]
        return torch.lerp(self.rates[right - 1], self.rates[right], (x - low) / (high - low)).float()


class InUnits(nn.Module):
    """mean + std * output: from standard deviations to the units of a number label."""

    def __init__(self, *, mean: float, std: float) -> None:
        super().__init__()
        self.mean = mean
        self.std = std

    def forward(self, outputs: Tensor) -> Tensor:
        """Map outputs (B,) to predictions float32 (B,)."""
        return (outputs.double() * self.std + self.mean).float()


@dataclass(frozen=True, eq=False, kw_only=True)
class ServedCalibration:
    """How logits become probabilities, or outputs predictions, where the model is served, and what that is checked
    against.
    """

    module: nn.Module  # logits float32 (B,) -> probabilities float32 (B,); scripts with ATen operators only
    reference: Callable[[Tensor], Tensor]  # the same in float64, by whoever fitted it
    tasks: "tuple[ServedCalibration, ...]" = ()  # of several tasks each its own; logits are (B, T) then

    @property
    def by_task(self) -> "tuple[ServedCalibration, ...]":
        """Of each task its own."""
        return self.tasks or (self,)


def in_units(label: LabelStatistics) -> ServedCalibration:
    """Of number labels."""
    return ServedCalibration(module=InUnits(mean=label.mean, std=label.std), reference=label.predictions)


UNCALIBRATED = ServedCalibration(module=nn.Sigmoid(), reference=lambda logits: torch.sigmoid(logits.double()))


class ProbabilitiesByTask(nn.Module):
    """Of each task the map of its own."""

    def __init__(self, maps: Sequence[nn.Module]) -> None:
        super().__init__()
        self.maps = nn.ModuleList(maps)

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits (B, T) to probabilities float32 (B, T)."""
        columns: list[Tensor] = []
        for task, each in enumerate(self.maps):
            columns.append(each(logits[:, task]))
        return torch.stack(columns, 1)


def by_task(tasks: Sequence[ServedCalibration]) -> ServedCalibration:
    """One for the logits of all tasks, (B, T); of a single task its own, for (B,)."""
    if len(tasks) == 1:
        return tasks[0]

    def reference(logits: Tensor) -> Tensor:
        columns = zip(tasks, logits.unbind(1), strict=True)
        return torch.stack([each.reference(column) for each, column in columns], 1)

    modules = [copy.deepcopy(each.module) for each in tasks]  # apart, although some may be the same sigmoid
    return ServedCalibration(module=ProbabilitiesByTask(modules), reference=reference, tasks=tuple(tasks))
