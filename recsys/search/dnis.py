"""`dnis`: a soft selection of columns by blocks of ids, the best of which are kept.

Cheng et al., arXiv:2006.04466 (DNIS); Kong et al., TKDE (AutoSrh).

The embedding of an id in block b is e * alpha[b]. Weights learn from training rows. alpha, which starts at 1, learns
from rows held out, each block by its gradient over its own mean size, because frequent ids would have all of the
gradient otherwise. In the end columns are kept by the mean size of alpha * e over the rows of the block, which is how
the published code prunes single weights: what they have in common, that rare ids end narrow, is what tables can be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recsys.core.callback import Callback, TrainingSession
from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.search.choice import Space
from recsys.search.columns import fill_budgets, ordered_columns
from recsys.search.fit import Column
from recsys.search.held_learning import HeldMask, HeldOutLearning
from recsys.search.masks import Mask, masks_in, supernet_plan
from recsys.search.method import Found, Supernet, SupernetSearch, Supervision

TINY = 1e-8
"""Added to the mean size of a block's gradient, as published."""


class SoftSelection(HeldMask):
    """Rows times the selection of their block."""

    def __init__(self, sizes: list[int], embedding_dim: int) -> None:
        super().__init__(sizes, embedding_dim)
        self.register_buffer("alpha", torch.ones(len(sizes), embedding_dim))

    def masked(self, ids: Tensor, row: Tensor) -> Tensor:
        """Select."""
        return self.passed(row) * self.alpha[self.blocks_of(ids)]


@dataclass(frozen=True, kw_only=True)
class DnisConfig(SupernetSearch):
    """The rates are those of the published code; its warm-up is 20 epochs of an unstated number."""

    warm_up_share: float = 0.3  # of the steps, before the selection learns
    selection_learning_rate: float = 0.01
    l1: float = 1e-5  # on the selection

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.warm_up_share < 1:
            raise ConfigError(f"search.warm_up_share={self.warm_up_share}: 0 or more, and below 1.")
        if self.selection_learning_rate <= 0 or self.l1 < 0:
            raise ConfigError(
                f"search.selection_learning_rate={self.selection_learning_rate}, search.l1={self.l1}: the first must "
                "be above 0, the second 0 or more."
            )

    def supernet(self, space: Space) -> TablePlan:
        """Full tables behind `SoftSelection`."""
        return supernet_plan(space, SoftSelection)

    def callbacks(self, space: Space, given: Supervision) -> list[Callback]:
        """What learns the selection."""
        return [SelectionLearning(space, self, given)]

    def find(
        self, space: Space, supernet: Supernet, budgets: Sequence[int], *, seed: int, storage: Path
    ) -> list[Found]:
        """Keep the columns of largest mean |alpha e| that fit each budget."""
        order = importance_order(space, supernet.session, masks_in(supernet.session.model, space))
        return fill_budgets(space, supernet, order, budgets, storage)


def importance_order(space: Space, session: TrainingSession, masks: Sequence[Mask]) -> list[Column]:
    """All columns of all blocks by the mean of |alpha e| over the block's rows, largest first."""

    def importance(feature: int, block: int, rows: Tensor) -> Tensor:
        mask = masks[feature]
        assert isinstance(mask, SoftSelection)
        return rows.abs() * mask.alpha[block]

    return ordered_columns(space, session, importance)


class SelectionLearning(HeldOutLearning):
    """Steps of the selection by normalised gradients."""

    def __init__(self, space: Space, config: DnisConfig, given: Supervision) -> None:
        super().__init__(space, given, warm_up=int(config.warm_up_share * given.num_steps))
        self._config = config

    def update(self, alphas: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """One step of each."""
        for alpha, gradient in zip(alphas, gradients, strict=True):
            alpha.copy_(stepped(alpha, gradient, self._config.selection_learning_rate, self._config.l1))


def stepped(alpha: Tensor, gradient: Tensor, learning_rate: float, l1: float) -> Tensor:
    """Return alpha less the rate times the block's gradient over its mean size, and the L1 penalty's; within [0, 1].

    Args:
        alpha: float32 (blocks, D).
        gradient: the same shape. A block without any gradient, none of whose ids the batch has, stays as it is.
        learning_rate: of the selection.
        l1: weight of the penalty.
    """
    size = gradient.abs().mean(1, keepdim=True)
    change = gradient / (size + TINY) + l1 * alpha.sign() * (size > 0)
    return (alpha - learning_rate * change).clamp(0.0, 1.0)
