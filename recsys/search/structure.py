"""What a supernet learns beside its weights: buffers of masks, each with a gradient for the length of one step.

Buffers, not parameters: the trainer's optimizers, its regulariser and its clipping leave them alone, and checkpoints
hold them with the tables.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from recsys.core.batch import Batch
from recsys.core.callback import Callback, TrainingSession


class BufferAdam:
    """Adam on buffers, whose moments can be kept as JSON values."""

    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate
        self._adam: torch.optim.Adam | None = None
        self._restored: dict[str, Any] | None = None

    def start(self, buffers: Sequence[Tensor]) -> None:
        """Make the optimizer, as it was before a restart."""
        self._adam = torch.optim.Adam(list(buffers), lr=self._learning_rate)
        if self._restored is not None:
            moments = {
                number: {name: torch.tensor(value) for name, value in moment.items()}
                for number, moment in enumerate(self._restored["moments"])
            }
            self._adam.load_state_dict({**self._adam.state_dict(), "state": moments})

    def step(self, buffers: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """One step of the buffers that it was made of."""
        assert self._adam is not None
        for buffer, gradient in zip(buffers, gradients, strict=True):
            buffer.grad = gradient
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Adam's moments."""
        if self._adam is None:
            return {"moments": []}
        states = self._adam.state_dict()["state"]
        return {"moments": [{n: v.tolist() for n, v in states[k].items()} for k in sorted(states)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep them until training starts."""
        self._restored = state if state["moments"] else None


class StructureLearning(Callback):
    """Adam on buffers, by the gradient that the step's loss gives them."""

    def __init__(self, learning_rate: float) -> None:
        self._adam = BufferAdam(learning_rate)
        self._buffers: list[Tensor] = []

    @abstractmethod
    def structure(self, session: TrainingSession) -> list[Tensor]:
        """The buffers, looked for once."""

    def on_train_start(self, session: TrainingSession) -> None:
        """Find the buffers."""
        self._buffers = self.structure(session)
        self._adam.start(self._buffers)

    def on_step_start(self, session: TrainingSession, step: int, batch: Batch) -> None:
        """Let gradients flow into the buffers."""
        for each in self._buffers:
            each.grad = None
            each.requires_grad_()

    def on_step_end(self, session: TrainingSession, step: int, loss: Tensor) -> None:
        """Step by the mean of all ranks' gradients, which is how the trainer scales their losses."""
        gradients = []
        for each in self._buffers:
            each.requires_grad_(False)
            gradient = torch.zeros_like(each) if each.grad is None else each.grad
            if session.world_size > 1:
                dist.all_reduce(gradient)
                gradient /= session.world_size
            gradients.append(gradient)
        self._adam.step(self._buffers, gradients)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's."""
        return self._adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As it was."""
        self._adam.load_state_dict(state)
