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
from torch import Tensor, nn

from recsys.core.batch import Batch, BatchSource
from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.core.progress import ProgressBar
from recsys.metrics import auc, log_loss
from recsys.train import checkpoint
from recsys.train.callbacks import Callback
from recsys.train.config import Precision, TrainConfig
from recsys.train.score import score
from recsys.train.session import Session

logger = logging.getLogger(__name__)

IMPROVEMENT = 1e-6
"""A smaller gain in validation AUC does not count (FuxiCTR's threshold)."""


@dataclass
class Progress:
    """Where a run stands; all of it goes into checkpoints as JSON."""

    epoch: int = 0
    batch: int = 0  # batches done in this epoch
    step: int = 0
    best_auc: float = -1.0
    best_epoch: int = -1
    stale_epochs: int = 0  # in a row without improvement
    learning_rate_factor: float = 1.0
    loss_sum: float = 0.0  # of this epoch's steps
    seconds: float = 0.0  # training steps only
    rows: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """Trains one session. `run` picks up at the last checkpoint in `folder` if there is one."""

    def __init__(
        self, session: Session, plan: TablePlan, config: TrainConfig, folder: Path, callbacks: Sequence[Callback] = ()
    ) -> None:
        self.session, self.plan, self.config, self.folder = session, plan, config, folder
        self.callbacks = list(callbacks)
        self.progress = Progress()
        self._base_rates = [group["lr"] for group in session.optimizer.param_groups]
        self._seed = 0

    def run(self, train: BatchSource, validation: BatchSource, *, seed: int) -> Progress:
        """Train until the last epoch or the plateau rule's stop, then load the best weights.

        Args:
            train: shuffled batches.
            validation: batches in file order.
            seed: of dropout; step k of rank r draws from a stream of (seed, k, r), so that a restart needs no stored state.

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
        return self.progress

    def _stopped(self) -> bool:
        plateau = self.config.plateau
        return plateau is not None and self.progress.stale_epochs >= plateau.stop_after

    def _train_epoch(self, source: BatchSource) -> None:
        progress, session = self.progress, self.session
        title = f"epoch {progress.epoch + 1}/{self.config.epochs}"
        with ProgressBar(title, total=source.num_rows, enabled=session.is_main) as bar:
            started = time.monotonic()
            for batch in source.epoch(progress.epoch, progress.batch):
                loss, rows = self._step(batch)
                now = time.monotonic()
                progress.seconds, started = progress.seconds + now - started, now
                progress.loss_sum += loss
                progress.rows += rows
                bar.note(f"loss {progress.loss_sum / progress.batch:.4f}")
                bar.advance(rows)
                if self.config.checkpoint_every and progress.step % self.config.checkpoint_every == 0:
                    self._save("last")
                    started = time.monotonic()

    def _step(self, batch: Batch) -> tuple[float, int]:
        """One optimizer step; returns the global batch's mean loss and its rows."""
        session, progress = self.session, self.progress
        torch.manual_seed(_step_seed(self._seed, progress.step, session.rank))
        batch = batch.to(session.device, non_blocking=True)
        totals = torch.tensor([0.0, batch.labels.numel()], dtype=torch.float64)
        if session.world_size > 1:
            dist.all_reduce(totals)
        rows = int(totals[1].item())
        session.optimizer.zero_grad()
        bfloat16 = self.config.run_on.precision is Precision.BFLOAT16
        with torch.autocast(session.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            logits = session.model(batch.dense, batch.sparse)
        loss_sum = nn.functional.binary_cross_entropy_with_logits(logits.float(), batch.labels, reduction="sum")
        # Ranks average gradients, so each weighs its rows by world_size / rows of the global batch: unequal shares stay exact.
        (loss_sum * (session.world_size / rows)).backward()
        self._shape_gradients()
        session.optimizer.step()
        progress.step, progress.batch = progress.step + 1, progress.batch + 1
        mean = self._mean_loss(loss_sum.detach(), rows)
        for callback in self.callbacks:
            callback.on_step_end(session, progress.step, loss_sum.detach() / batch.labels.numel())
        return mean, rows

    def _mean_loss(self, loss_sum: Tensor, rows: int) -> float:
        if self.session.world_size > 1:
            loss_sum = loss_sum.double().cpu()
            dist.all_reduce(loss_sum)
        mean = float(loss_sum) / rows
        if not mean < float("inf"):
            raise ConfigError(
                f"the loss became {mean} at step {self.progress.step}. Lower optimizer.dense_learning_rate and "
                "optimizer.table_learning_rate, or set optimizer.clip_norm; run_on.precision=float32 rules out overflow."
            )
        return mean

    def _shape_gradients(self) -> None:
        config, tables = self.config.optimizer, self.session.table_parameters
        if config.table_regularizer:
            gradients = [p.grad for p in tables if p.grad is not None]
            torch._foreach_add_(gradients, [p.data for p in tables if p.grad is not None], alpha=config.table_regularizer)
        if config.clip_norm:
            free = [p for p in self.session.model.parameters() if p.grad is not None]
            nn.utils.clip_grad_norm_(free, config.clip_norm)

    def _end_epoch(self, validation: BatchSource) -> None:
        progress, session = self.progress, self.session
        _average_statistics(session)
        logits, labels = score(session, validation, "validation")
        area, loss = auc(labels, logits), log_loss(labels, logits)
        if area.value is None or loss.value is None:
            raise ConfigError(f"validation has no AUC: {area.reason or loss.reason}. Give the validation split rows of both labels.")
        record = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss_sum / max(progress.batch, 1),
            "validation_auc": area.value,
            "validation_log_loss": loss.value,
            "learning_rate": session.optimizer.param_groups[-1]["lr"],
            "rows_per_second": progress.rows / max(progress.seconds, 1e-9),
        }
        progress.history.append(record)
        for callback in self.callbacks:
            callback.on_epoch_end(session, record)
        improved = area.value > progress.best_auc + IMPROVEMENT
        if improved:
            progress.best_auc, progress.best_epoch = area.value, progress.epoch + 1
        progress.epoch, progress.batch, progress.loss_sum = progress.epoch + 1, 0, 0.0
        self._follow_plateau(improved=improved)
        if improved:
            self._save("best")
        self._save("last")
        logger.info("epoch %d: loss %.4f, validation AUC %.5f, log loss %.5f", progress.epoch, *list(record.values())[1:4])

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
        state = {
            "plan": self.plan.fingerprint,
            "progress": vars(self.progress),
            "callbacks": [callback.state_dict() for callback in self.callbacks],
        }
        checkpoint.save(self.folder / name, tensors, state)

    def _resume(self) -> None:
        last = checkpoint.find(self.folder / "last")
        if last is None:
            return
        state = checkpoint.read_state(last, self.plan)
        for optimizer in self.session.optimizer.optimizers:
            optimizer[1].init_state()
        checkpoint.load(last, self._tensors())
        self.session.optimizer.post_load_state_dict()
        self.progress = Progress(**state["progress"])
        for callback, saved in zip(self.callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(saved)
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
