"""What acts while a model trains: logging today; clustering, promotion, pruning, annealing and search in their methods."""

from typing import Any

import torch

from recsys.train.session import Session


class Callback:
    """Base of all callbacks; every hook does nothing by default. Hooks run on every rank, in the same order.

    A callback that changes ids, tables or masks must do so equally on all ranks, and keep what it needs to go on
    after a restart in `state_dict` (JSON values; tensors belong in buffers of remaps, which checkpoints hold anyway).
    """

    def on_train_start(self, session: Session) -> None:
        """Before the first step, or the first after a restart."""

    def on_step_end(self, session: Session, step: int, loss: torch.Tensor) -> None:
        """After the optimizers' step; `step` counts from 1, `loss` is this rank's, detached."""

    def on_epoch_end(self, session: Session, record: dict[str, float]) -> None:
        """After validation; `record` is the epoch's row of the history."""

    def state_dict(self) -> dict[str, Any]:
        """What to keep in a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
