"""Structure that learns from held-out rows while weights learn from training rows: bi-level, first order."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from recsys.core.batch import Batch
from recsys.core.callback import Callback, TrainingSession
from recsys.search.choice import Space
from recsys.search.masks import Mask, masks_in
from recsys.search.method import Supervision


class HeldMask(Mask):
    """A mask with a buffer `alpha` (blocks, …); while that learns, rows pass no gradient on."""

    alpha: Tensor

    def __init__(self, sizes: list[int], embedding_dim: int) -> None:
        super().__init__(sizes, embedding_dim)
        self.learns = False

    def passed(self, row: Tensor) -> Tensor:
        """The rows, cut off from their tables while `alpha` learns."""
        # Fused tables are updated by whatever gradient reaches them: none may, while the structure learns.
        return row.detach() if self.learns else row


class HeldOutLearning(Callback):
    """After a warm-up, one step of all `alpha` on held-out rows for each step of the weights."""

    def __init__(self, space: Space, given: Supervision, *, warm_up: int) -> None:
        """Learn after so many steps.

        Args:
            space: of the supernet.
            given: what to learn from.
            warm_up: steps of the weights alone.
        """
        self._space, self._given, self._warm_up = space, given, warm_up
        self._batches: tuple[int, Iterator[Batch]] | None = None  # number of the next, and those from it on
        self._masks: list[HeldMask] = []

    @abstractmethod
    def update(self, alphas: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Change the buffers in place; gradients are equal on all ranks."""

    def on_train_start(self, session: TrainingSession) -> None:
        """Find the masks."""
        self._masks = [mask for mask in masks_in(session.model, self._space) if isinstance(mask, HeldMask)]

    def on_step_end(self, session: TrainingSession, step: int, loss: Tensor) -> None:
        """Learn, once warm."""
        if step > self._warm_up:
            gradients = self._gradients(session, step - self._warm_up - 1)
            self.update([mask.alpha for mask in self._masks], gradients)

    def _gradients(self, session: TrainingSession, number: int) -> list[Tensor]:
        """Of the mean loss of held-out batch `number` with respect to each selection; equal on all ranks."""
        batch = self._batch(number).to(session.device)
        # Beneath the wrapper that averages gradients over ranks, which would wait for those of the weights.
        model = getattr(session.model, "module", session.model)
        selections = [mask.alpha.requires_grad_() for mask in self._masks]
        rows = self._given.held.rows_of(number % self._given.held.num_batches)
        self._set_learning(learns=True)
        model.eval()  # held-out rows must not move batch statistics
        loss = self._given.loss_sum(model, batch) / rows
        gradients = list(torch.autograd.grad(loss, selections, allow_unused=True, materialize_grads=True))
        model.train()
        self._set_learning(learns=False)
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

    def _set_learning(self, *, learns: bool) -> None:
        for mask in self._masks:
            mask.learns = learns
