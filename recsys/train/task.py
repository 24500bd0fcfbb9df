"""What is learned: the loss of a batch and the figures of a split. The trainer knows neither labels nor metrics."""

from typing import Protocol

from torch import Tensor, nn

from recsys.core.batch import Batch, BatchSource
from recsys.core.errors import ConfigError
from recsys.metrics import auc, log_loss
from recsys.train.score import score
from recsys.train.session import Session


class Task(Protocol):
    """A loss and a validation."""

    @property
    def monitor(self) -> str:
        """Key of `evaluate`'s figures that chooses the best epoch; higher is better."""

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum over the batch's rows of the loss, float32, a scalar with gradient."""

    def evaluate(self, session: Session, source: BatchSource) -> dict[str, float]:
        """Figures of a split, equal on every rank."""


class ClickTask:
    """Binary cross entropy of logits; AUC and log loss."""

    monitor = "validation_auc"

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum of binary cross entropies, in nats."""
        logits: Tensor = model(batch.dense, batch.sparse).float()[: batch.labels.numel()]
        return nn.functional.binary_cross_entropy_with_logits(logits, batch.labels, reduction="sum")

    def evaluate(self, session: Session, source: BatchSource) -> dict[str, float]:
        """Exact AUC and log loss.

        Raises:
            ConfigError: the split has rows of one label only.
        """
        logits, labels = score(session, source, "validation")
        area, loss = auc(labels, logits), log_loss(labels, logits)
        if area.value is None or loss.value is None:
            reason = area.undefined_reason or loss.undefined_reason
            raise ConfigError(
                f"validation has no AUC, because {reason}. Give the validation split rows of both labels."
            )
        return {"validation_auc": area.value, "validation_log_loss": loss.value}
