"""Training curves for TensorBoard."""

from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from recsys.train.callbacks import Callback
from recsys.train.session import Session

STEPS_PER_POINT = 20


class TensorBoardCallback(Callback):
    """Writes the loss every few steps and everything else each epoch."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder))

    def on_step_end(self, session: Session, step: int, loss: torch.Tensor) -> None:
        """Write the loss."""
        if step % STEPS_PER_POINT == 0:
            self._writer.add_scalar("train/loss", loss.item(), step)

    def on_epoch_end(self, session: Session, record: dict[str, float]) -> None:
        """Write the epoch's record."""
        for name, value in record.items():
            self._writer.add_scalar(f"epoch/{name}", value, int(record["epoch"]))
        self._writer.flush()
