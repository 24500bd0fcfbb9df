"""What acts while a model trains: logging, and what a method or a search does between steps.

Here and not in the training room, so that a method's file can hold its callback: clustering, promotion, pruning, masks.
"""

from typing import Any, Protocol

import torch
from torch import nn

from recsys.core.batch import Batch


class TrainingSession(Protocol):
    """What a callback sees of a model on its ranks."""

    device: torch.device
    rank: int
    world_size: int

    @property
    def model(self) -> nn.Module:
        """The sharded model; `state_dict()` shares memory with its parameters."""

    @property
    def is_main(self) -> bool:
        """True on the rank that writes and prints."""

    def read_rows(self, table: str, rows: torch.Tensor) -> torch.Tensor:
        """Rows of a table, whichever ranks hold them; a collective call.

        Args:
            table: its name in the plan.
            rows: int64, shape (R,), equal on all ranks.

        Returns:
            float32, shape (R, embedding_dim), equal on all ranks, on this rank's device.
        """

    def write_rows(self, table: str, rows: torch.Tensor, values: torch.Tensor, *, forget: bool = True) -> None:
        """Replace rows of a table; a collective call.

        Args:
            table: its name in the plan.
            rows: int64, shape (R,), distinct, equal on all ranks.
            values: float32, shape (R, embedding_dim), equal on all ranks.
            forget: zero what the optimizer has gathered about these rows, because they now mean something else.
        """


class Callback:
    """Base of all callbacks; every hook does nothing by default. Hooks run on every rank, in the same order.

    A callback that changes ids, tables or masks must do so equally on all ranks, and keep what it needs to go on
    after a restart in `state_dict` (JSON values; tensors belong in buffers of remaps, which checkpoints hold anyway).
    """

    def on_train_start(self, session: TrainingSession) -> None:
        """Before the first step, or the first after a restart."""

    def on_step_start(self, session: TrainingSession, step: int, batch: Batch) -> None:
        """Before the forward pass of step `step`, which counts from 1; `batch` is this rank's share, on its device."""

    def penalty(self, session: TrainingSession, rows: int) -> torch.Tensor | None:
        """What the step's loss gets beside the mean over rows: a scalar with gradient, after the forward pass.

        Args:
            session: of this rank.
            rows: of the global batch. The penalties of all ranks are added up, as their shares of the loss are, so a
                mean over rows is this rank's sum divided by `rows`.
        """
        return None

    def on_step_end(self, session: TrainingSession, step: int, loss: torch.Tensor) -> None:
        """After the optimizers' step; `loss` is this rank's mean, detached."""

    def on_epoch_end(self, session: TrainingSession, record: dict[str, float]) -> None:
        """After validation, when the best weights are saved; `record` is the epoch's row of the history."""

    def state_dict(self) -> dict[str, Any]:
        """What to keep in a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
