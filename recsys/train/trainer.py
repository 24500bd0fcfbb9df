"""The training loop: steps, validation, plateau schedule, checkpoints, exact resumption."""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from recsys.core.batch import Batch, BatchSource
from recsys.core.callback import Callback
from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.core.progress import ProgressBar
from recsys.train import checkpoint
from recsys.train.config import Precision, TrainConfig
from recsys.train.session import Session
from recsys.train.task import ClickTask, Task

logger = logging.getLogger(__name__)

STEPS_PER_NOTE = 10
"""Steps between two looks at the loss for the progress bar; each look waits for the device."""

IMPROVEMENT = 1e-6
"""A smaller gain in validation AUC does not count (FuxiCTR's threshold)."""


@dataclass
class Progress:
    """Where a run stands; all of it goes into checkpoints as JSON."""

    epoch: int = 0
    batch: int = 0  # batches done in this epoch
    step: int = 0
    best_value: float = float("-inf")  # of the task's monitor
    best_epoch: int = -1
    stale_epochs: int = 0  # in a row without improvement
    learning_rate_factor: float = 1.0
    loss_sum: float = 0.0  # of this epoch's steps, kept here in checkpoints only
    seconds: float = 0.0  # training steps only
    total_seconds: float = 0.0  # since training began, in all processes, each counted up to its last checkpoint
    rows: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """Trains one session. `run` picks up at the last checkpoint in `folder` if there is one.

    `callbacks` must be the same on every rank; they are hooked in their order.
    """

    def __init__(
        self, session: Session, plan: TablePlan, config: TrainConfig, folder: Path, callbacks: Sequence[Callback] = ()
    ) -> None:
        self.session, self.plan, self.config, self.folder = session, plan, config, folder
        self.callbacks = list(callbacks)
        self.task: Task = ClickTask()
        self.progress = Progress()
        self._base_rates = session.learning_rates()
        self._seed = 0
        self._counted_at = time.monotonic()
        # On the device, so that no step waits for the host; this rank's part of the epoch's sum of mean losses.
        self._loss = torch.zeros((), dtype=torch.float64, device=session.device)

    def run(self, train: BatchSource, validation: BatchSource, *, seed: int) -> Progress:
        """Train until the last epoch or the plateau rule's stop, then load the best weights.

        Args:
            train: shuffled batches.
            validation: batches in file order.
            seed: of dropout; step k of rank r draws from a stream of (seed, k, r), so a restart needs no stored state.

        Returns:
            Where the run ended, with one history row an epoch.
        """
        self._seed = seed
        self._resume()
        for callback in self.callbacks:
            callback.on_train_start(self.session)
        while self.progress.epoch < self.config.epochs and not self._stopped():
            self._train_epoch(train)
            self._end_epoch(validation)
        best = checkpoint.find(self.folder / "best")
        if best is not None:
            checkpoint.load(best, {"model": self.session.model.state_dict()})
            self.session.weights_loaded()
        self._count_seconds()
        return self.progress

    def _stopped(self) -> bool:
        plateau = self.config.plateau
        return plateau is not None and self.progress.stale_epochs >= plateau.stop_after

    def _train_epoch(self, source: BatchSource) -> None:
        progress, session = self.progress, self.session
        title = f"epoch {progress.epoch + 1}/{self.config.epochs}"
        left = source.num_rows - sum(source.rows_of(batch) for batch in range(progress.batch))
        with ProgressBar(title, total=left, enabled=session.is_main) as bar:
            started = time.monotonic()
            for batch in source.epoch(progress.epoch, progress.batch):
                rows = source.rows_of(progress.batch)
                self._step(batch, rows)
                now = time.monotonic()
                progress.seconds, started = progress.seconds + now - started, now
                progress.rows += rows
                if progress.step % STEPS_PER_NOTE == 0:
                    bar.note(f"loss {float(self._loss) * session.world_size / progress.batch:.4f}")
                bar.advance(rows)
                if self.config.checkpoint_every and progress.step % self.config.checkpoint_every == 0:
                    self._save("last")
                    started = time.monotonic()

    def _step(self, batch: Batch, rows: int) -> None:
        """One optimizer step on a global batch of `rows` rows, of which `batch` is this rank's share."""
        session, progress = self.session, self.progress
        torch.manual_seed(_step_seed(self._seed, progress.step, session.rank))
        batch = batch.to(session.device, non_blocking=True)
        for callback in self.callbacks:
            callback.on_step_start(session, progress.step + 1, batch)
        session.optimizer.zero_grad()
        bfloat16 = self.config.run_on.precision is Precision.BFLOAT16
        with torch.autocast(session.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            loss = self.task.loss_sum(session.model, batch)
        # Ranks average gradients, so each scales its share of the mean loss up: unequal shares stay exact.
        penalties = [term for callback in self.callbacks if (term := callback.penalty(session, rows)) is not None]
        (torch.stack([loss.objective / rows, *penalties]).sum() * session.world_size).backward()
        self._shape_gradients()
        session.optimizer.step()
        progress.step, progress.batch = progress.step + 1, progress.batch + 1
        reported = loss.reported.detach() / rows
        self._loss += reported
        for callback in self.callbacks:
            callback.on_step_end(session, progress.step, reported * session.world_size)

    def _global_loss_sum(self) -> float:
        """Sum of this epoch's mean losses over all ranks."""
        total = self._loss.cpu()
        if self.session.world_size > 1:
            dist.all_reduce(total)
        if not bool(total.isfinite()):
            raise ConfigError(
                f"the loss became {float(total)} before step {self.progress.step}. Lower optimizer.dense_learning_rate "
                "and optimizer.table_learning_rate, or set optimizer.clip_norm; precision=float32 rules out overflow."
            )
        return float(total)

    def _shape_gradients(self) -> None:
        config = self.config.optimizer
        if config.table_regularizer:
            pairs = [(p.grad, p.data) for p in self.session.embedding_parameters if p.grad is not None]
            torch._foreach_add_([g for g, _ in pairs], [weight for _, weight in pairs], alpha=config.table_regularizer)
        if config.clip_norm:
            free = [p for p in self.session.model.parameters() if p.grad is not None]
            nn.utils.clip_grad_norm_(free, config.clip_norm)

    def _end_epoch(self, validation: BatchSource) -> None:
        progress, session = self.progress, self.session
        _average_statistics(session)
        record = self._record(validation)
        progress.history.append(record)
        value = record[self.task.monitor]
        improved = value > progress.best_value + IMPROVEMENT
        if improved:
            progress.best_value, progress.best_epoch = value, progress.epoch + 1
        progress.epoch, progress.batch = progress.epoch + 1, 0
        self._loss.zero_()
        self._follow_plateau(improved=improved)
        if improved:  # before callbacks, which may change weights: "best" is what was validated
            self._save("best")
        for callback in self.callbacks:
            callback.on_epoch_end(session, record)
        self._save("last")
        shown = ", ".join(f"{name} {figure:.5g}" for name, figure in record.items() if name != "epoch")
        logger.info("epoch %d: %s", progress.epoch, shown)

    def _record(self, validation: BatchSource) -> dict[str, float]:
        """The epoch's row of the history."""
        progress = self.progress
        return {
            "epoch": progress.epoch + 1,
            "train_loss": self._global_loss_sum() / max(progress.batch, 1),
            **self.task.evaluate(self.session, validation),
            "learning_rate": self.session.learning_rates()[-1],
            "rows_per_second": progress.rows / max(progress.seconds, 1e-9),
        }

    def _follow_plateau(self, *, improved: bool) -> None:
        progress, plateau = self.progress, self.config.plateau
        progress.stale_epochs = 0 if improved else progress.stale_epochs + 1
        if plateau is not None and not improved:
            progress.learning_rate_factor *= plateau.factor
        self._set_rates()

    def _set_rates(self) -> None:
        floor = self.config.plateau.min_learning_rate if self.config.plateau is not None else 0.0
        self.session.scale_learning_rates(self._base_rates, self.progress.learning_rate_factor, floor)

    def _tensors(self) -> dict[str, Any]:
        return {"model": self.session.model.state_dict(), "optimizer": self.session.optimizer.state_dict()}

    def _save(self, name: str) -> None:
        tensors = self._tensors() if name == "last" else {"model": self.session.model.state_dict()}
        self.progress.loss_sum = self._global_loss_sum()
        self._count_seconds()
        state = {
            "plan": self.plan.fingerprint,
            "progress": vars(self.progress),
            "callbacks": {name: callback.state_dict() for name, callback in self._named_callbacks()},
        }
        checkpoint.save(self.folder / name, tensors, state)

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.progress.total_seconds, self._counted_at = self.progress.total_seconds + now - self._counted_at, now

    def _named_callbacks(self) -> list[tuple[str, Callback]]:
        return [(f"{number}.{type(callback).__name__}", callback) for number, callback in enumerate(self.callbacks)]

    def _resume(self) -> None:
        last = checkpoint.find(self.folder / "last")
        if last is None:
            return
        state = checkpoint.read_state(last, self.plan)
        with checkpoint.without_notes():
            for optimizer in self.session.optimizer.optimizers:
                optimizer[1].init_state()
        checkpoint.load(last, self._tensors())
        self.progress = Progress(**state["progress"])
        self.session.weights_loaded()
        self.session.optimizer_loaded(self.progress.step)
        if self.session.is_main:
            self._loss.fill_(self.progress.loss_sum)
        for name, callback in self._named_callbacks():
            callback.load_state_dict(state["callbacks"][name])
        self._set_rates()
        logger.info("resumed at epoch %d, batch %d", self.progress.epoch + 1, self.progress.batch)


def _step_seed(seed: int, step: int, rank: int) -> int:
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def _average_statistics(session: Session) -> None:
    """Give all ranks the mean of their batch-norm statistics, which each kept from its own share of the rows."""
    if session.world_size == 1:
        return
    for buffer in session.model.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= session.world_size
