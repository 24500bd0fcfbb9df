"""What a supernet learns beside its weights: buffers of masks, each with a gradient for the length of one step.

Buffers, not parameters: the trainer's optimizers, its regulariser and its clipping leave them alone, and checkpoints
hold them with the tables.
"""

from abc import abstractmethod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from recsys.core.batch import Batch
from recsys.core.callback import Callback, TrainingSession


class StructureLearning(Callback):
    """Adam on buffers, by the gradient that the step's loss gives them."""

    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate
        self._buffers: list[Tensor] = []
        self._adam: torch.optim.Adam | None = None
        self._restored: dict[str, Any] | None = None

    @abstractmethod
    def structure(self, session: TrainingSession) -> list[Tensor]:
        """The buffers, looked for once."""

    def on_train_start(self, session: TrainingSession) -> None:
        """Make the optimizer, as it was before a restart."""
        self._buffers = self.structure(session)
        self._adam = torch.optim.Adam(self._buffers, lr=self._learning_rate)
        if self._restored is not None:
            moments = {
                number: {name: torch.tensor(value) for name, value in moment.items()}
                for number, moment in enumerate(self._restored["moments"])
            }
            self._adam.load_state_dict({**self._adam.state_dict(), "state": moments})

    def on_step_start(self, session: TrainingSession, step: int, batch: Batch) -> None:
        """Let gradients flow into the buffers."""
        for each in self._buffers:
            each.grad = None
            each.requires_grad_()

    def on_step_end(self, session: TrainingSession, step: int, loss: Tensor) -> None:
        """Step by the mean of all ranks' gradients, which is how the trainer scales their losses."""
        assert self._adam is not None
        for each in self._buffers:
            each.requires_grad_(False)
            if each.grad is None:
                each.grad = torch.zeros_like(each)
            if session.world_size > 1:
                dist.all_reduce(each.grad)
                each.grad /= session.world_size
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Adam's moments."""
        if self._adam is None:
            return {"moments": []}
        states = self._adam.state_dict()["state"]
        return {"moments": [{n: v.tolist() for n, v in states[k].items()} for k in sorted(states)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep them until training starts."""
        self._restored = state
