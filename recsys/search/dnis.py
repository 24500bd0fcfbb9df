"""`dnis`: a soft selection of columns by blocks of ids, the best of which are kept.

Cheng et al., arXiv:2006.04466 (DNIS); Kong et al., TKDE (AutoSrh).

The embedding of an id in block b is e * alpha[b]. Weights learn from training rows. alpha, which starts at 1, learns
from rows held out, each block by its gradient over its own mean size, because frequent ids would have all of the
gradient otherwise. In the end columns are kept by the mean size of alpha * e over the rows of the block, which is how
the published code prunes single weights: what they have in common, that rare ids end narrow, is what tables can be.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from recsys.core.batch import Batch
from recsys.core.callback import Callback, TrainingSession
from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.search.choice import Space
from recsys.search.fit import Column, fit
from recsys.search.masks import Mask, masks_in, supernet_plan, try_out
from recsys.search.memo import Memo
from recsys.search.method import Found, Supernet, SupernetSearch, Supervision
from recsys.search.thresholds import ROWS_AT_ONCE

TINY = 1e-8
"""Added to the mean size of a block's gradient, as published."""


class SoftSelection(Mask):
    """Rows times the selection of their block; while the selection learns, rows pass no gradient on."""

    alpha: Tensor

    def __init__(self, sizes: list[int], embedding_dim: int) -> None:
        super().__init__(sizes, embedding_dim)
        self.register_buffer("alpha", torch.ones(len(sizes), embedding_dim))
        self.learns = False

    def masked(self, ids: Tensor, row: Tensor) -> Tensor:
        """Select."""
        # Fused tables are updated by whatever gradient reaches them: none may, while the selection learns.
        row = row.detach() if self.learns else row
        return row * self.alpha[self.blocks_of(ids)]


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
        masks = masks_in(supernet.session.model, space)
        memo = Memo(storage, writes=supernet.session.is_main)
        order, found = importance_order(space, supernet.session, masks), []
        for budget in budgets:
            choice = fit(space, order, budget)
            try_out(masks, choice)
            value = memo.get(str(budget), lambda: [supernet.score()])[0]
            found.append(Found(budget_bytes=budget, choice=choice, score=value))
        try_out(masks, None)
        return found


def importance_order(space: Space, session: TrainingSession, masks: Sequence[Mask]) -> list[Column]:
    """All columns of all blocks by the mean of |alpha e| over the block's rows, largest first."""
    found: list[tuple[float, Column]] = []
    for number, (feature, blocks, mask) in enumerate(zip(space.features, space.blocks, masks, strict=True)):
        assert isinstance(mask, SoftSelection)
        for place, block in enumerate(blocks):
            ids = torch.arange(block.first, block.first + block.size, device=session.device)
            parts = [session.read_rows(f"table_{feature.name}", part).abs().sum(0) for part in ids.split(ROWS_AT_ONCE)]
            mean = torch.stack(parts).sum(0) / block.size * mask.alpha[place]
            found += [(-size, Column(number, place, column)) for column, size in enumerate(mean.tolist())]
    return [column for _, column in sorted(found, key=lambda each: each[0])]  # of equal ones the order above


class SelectionLearning(Callback):
    """After the warm-up, one step of the selection on held-out rows for each step of the weights."""

    def __init__(self, space: Space, config: DnisConfig, given: Supervision) -> None:
        self._space, self._config, self._given = space, config, given
        self._warm_up = int(config.warm_up_share * given.num_steps)
        self._batches: tuple[int, Iterator[Batch]] | None = None  # number of the next, and those from it on
        self._masks: list[Mask] = []

    def on_train_start(self, session: TrainingSession) -> None:
        """Find the masks."""
        self._masks = masks_in(session.model, self._space)

    def on_step_end(self, session: TrainingSession, step: int, loss: Tensor) -> None:
        """Learn, once warm."""
        if step <= self._warm_up:
            return
        gradients = self._gradients(session, self._masks, step - self._warm_up - 1)
        for mask, gradient in zip(self._masks, gradients, strict=True):
            assert isinstance(mask, SoftSelection)
            mask.alpha.copy_(stepped(mask.alpha, gradient, self._config.selection_learning_rate, self._config.l1))

    def _gradients(self, session: TrainingSession, masks: Sequence[Mask], number: int) -> list[Tensor]:
        """Of the mean loss of held-out batch `number` with respect to each selection; equal on all ranks."""
        batch = self._batch(number).to(session.device)
        # Beneath the wrapper that averages gradients over ranks, which would wait for those of the weights.
        model = getattr(session.model, "module", session.model)
        selections = [mask.alpha.requires_grad_() for mask in masks if isinstance(mask, SoftSelection)]
        rows = self._given.held.rows_of(number % self._given.held.num_batches)
        _set_learning(masks, learns=True)
        model.eval()  # held-out rows must not move batch statistics
        loss = self._given.loss_sum(model, batch) / rows
        gradients = list(torch.autograd.grad(loss, selections, allow_unused=True, materialize_grads=True))
        model.train()
        _set_learning(masks, learns=False)
        for selection in selections:
            selection.requires_grad_(False)
        if session.world_size > 1:
            for gradient in gradients:
                dist.all_reduce(gradient)
        return gradients

    def _batch(self, number: int) -> Batch:
        """Held-out batch `number`, epoch after epoch; the first after a restart is sought."""
        held = self._given.held
        epoch, place = divmod(number, held.num_batches)
        if self._batches is None or self._batches[0] != number or not place:
            self._batches = (number, held.epoch(epoch, place))
        batches = self._batches[1]
        self._batches = (number + 1, batches)
        return next(batches)


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


def _set_learning(masks: Sequence[Mask], *, learns: bool) -> None:
    for mask in masks:
        assert isinstance(mask, SoftSelection)
        mask.learns = learns
