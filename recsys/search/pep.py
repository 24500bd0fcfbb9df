"""`pep`: weights shrunk by thresholds that are learned with them, until columns are gone (Liu et al., ICLR 2021).

v' = sign(v) max(|v| - sigmoid(s), 0), equation 4 of arXiv:2101.07577. Decay pulls every s from far below towards 0, so
all thresholds rise; where the loss needs a weight, its gradient holds the threshold down. Decay is what prunes: without
it the gradient of s, which carries the slope of the sigmoid, is nothing. What is found is retrained from the rows that
the supernet started with (a lottery ticket).

Differences: s is of a block of ids and a column, of the published granularities the nearest to what tables can be;
columns are kept by what their weights have left, instead of waiting until the count of weights has fallen to a budget,
so one supernet serves all budgets; decay is on s alone, because fused tables have none. Rows are shrunk as they are
looked up, which is the same as shrinking tables at each step, and touches no more rows than a step does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from recsys.core.callback import Callback, TrainingSession
from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.search.choice import Space
from recsys.search.columns import fill_budgets, ordered_columns
from recsys.search.masks import Mask, masks_in, supernet_plan
from recsys.search.method import Found, Supernet, SupernetSearch, Supervision
from recsys.search.structure import StructureLearning

GONE = 1e-3
"""What a weight below its threshold counts, of its distance: an order for columns that are gone altogether."""


class SoftThreshold(Mask):
    """Rows shrunk by the thresholds of their block."""

    strength: Tensor

    def __init__(self, sizes: list[int], embedding_dim: int, initial: float) -> None:
        super().__init__(sizes, embedding_dim)
        self.register_buffer("strength", torch.full((len(sizes), embedding_dim), initial))

    def masked(self, ids: Tensor, row: Tensor) -> Tensor:
        """Shrink."""
        return row.sign() * torch.relu(row.abs() - self.strength.sigmoid()[self.blocks_of(ids)])


@dataclass(frozen=True, kw_only=True)
class PepConfig(SupernetSearch):
    """The values are those of the published code for MovieLens-1M, where s starts at -15; Criteo's starts at -150.

    With Adam s moves by about the learning rate a step, whatever the decay: it must get from `initial` to where its
    sigmoid is the size of the weights within the steps that there are.
    """

    lottery: ClassVar[bool] = True
    initial: float = -15.0  # s
    threshold_learning_rate: float = 1e-3  # of s
    weight_decay: float = 1e-5  # of s

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold_learning_rate <= 0 or self.weight_decay <= 0:
            raise ConfigError(
                f"search.threshold_learning_rate={self.threshold_learning_rate}, search.weight_decay="
                f"{self.weight_decay}: both must be above 0. Without decay nothing is pruned."
            )

    def supernet(self, space: Space) -> TablePlan:
        """Full tables behind `SoftThreshold`."""
        return supernet_plan(space, SoftThreshold, initial=self.initial)

    def callbacks(self, space: Space, given: Supervision) -> list[Callback]:
        """What learns the thresholds."""
        return [StrengthLearning(space, self)]

    def find(
        self, space: Space, supernet: Supernet, budgets: Sequence[int], *, seed: int, storage: Path
    ) -> list[Found]:
        """Keep the columns whose weights have most left that fit each budget."""
        strengths = strengths_of(masks_in(supernet.session.model, space))

        def left(feature: int, block: int, rows: Tensor) -> Tensor:
            return torch.nn.functional.leaky_relu(rows.abs() - strengths[feature][block].sigmoid(), GONE)

        return fill_budgets(space, supernet, ordered_columns(space, supernet.session, left), budgets, storage)


class StrengthLearning(StructureLearning):
    """Adam on s, by the gradient of the training loss and of the decay, coupled as published."""

    def __init__(self, space: Space, config: PepConfig) -> None:
        super().__init__(config.threshold_learning_rate)
        self._space, self._decay = space, config.weight_decay

    def structure(self, session: TrainingSession) -> list[Tensor]:
        """The s of each feature."""
        return strengths_of(masks_in(session.model, self._space))

    def penalty(self, session: TrainingSession, rows: int) -> Tensor | None:
        """Half the decay times the sum of s squared, whose gradient is the decay times s; this rank's share of it."""
        total = torch.stack([strength.square().sum() for strength in self._buffers]).sum()
        return self._decay / 2 / session.world_size * total


def strengths_of(masks: Sequence[Mask]) -> list[Tensor]:
    """The s of each feature, (blocks, D)."""
    return [mask.strength for mask in masks if isinstance(mask, SoftThreshold)]
