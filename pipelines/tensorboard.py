"""Training curves for TensorBoard."""

from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from recsys.core.callback import Callback, TrainingSession

STEPS_PER_POINT = 20


class TensorBoardCallback(Callback):
    """Writes the main rank's loss every few steps, and everything else each epoch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def on_train_start(self, session: TrainingSession) -> None:
        """Open the file, on the main rank alone."""
        if session.is_main:
            self._writer = SummaryWriter(str(self._folder))

    def on_step_end(self, session: TrainingSession, step: int, loss: torch.Tensor) -> None:
        """Write the loss."""
        if self._writer is not None and step % STEPS_PER_POINT == 0:
            self._writer.add_scalar("train/loss", loss.item(), step)

    def on_epoch_end(self, session: TrainingSession, record: dict[str, float]) -> None:
        """Write the epoch's record."""
        if self._writer is None:
            return
        for name, value in record.items():
            self._writer.add_scalar(f"epoch/{name}", value, int(record["epoch"]))
        self._writer.flush()
