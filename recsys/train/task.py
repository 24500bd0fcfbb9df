"""What is learned: the loss of a batch and the figures of a split. The trainer knows neither labels nor metrics."""

from typing import Protocol

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from recsys.core.batch import Batch, BatchSource
from recsys.core.errors import ConfigError
from recsys.core.loss import Loss
from recsys.metrics import auc, log_loss
from recsys.train.score import Scorer, score
from recsys.train.session import Session


class Task(Protocol):
    """A loss and a validation."""

    @property
    def monitor(self) -> str:
        """Key of `evaluate`'s figures that chooses the best epoch; higher is better."""

    def loss_sum(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of the batch's rows."""

    def evaluate(self, session: Session, source: BatchSource) -> dict[str, float]:
        """Figures of a split, equal on every rank."""


def click_loss(outputs: Tensor, labels: Tensor) -> Loss:
    """Sum over rows of BCE(logits, labels), and of BCE(stream, sigmoid(logits)) for each stream of the model.

    The first alone is reported.

    Streams learn from the logits, never the reverse: no gradient flows through the probabilities taught.

    Args:
        outputs: float32 (B,), the logits; or (B, 1 + S), column 0 the logits, the others those of S streams.
        labels: float32 (B,), 0 or 1.

    Returns:
        nats.
    Source: Zhu et al., FINAL, SIGIR 2023 (self-distillation); weights 1, as in FuxiCTR.
    """
    if outputs.dim() == 1:
        log_loss_sum = binary_cross_entropy_with_logits(outputs, labels, reduction="sum")
        return Loss(log_loss_sum, log_loss_sum)
    logits, streams = outputs[:, 0], outputs[:, 1:]
    taught = logits.detach().sigmoid().unsqueeze(1).expand_as(streams)
    log_loss_sum = binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    return Loss(log_loss_sum + binary_cross_entropy_with_logits(streams, taught, reduction="sum"), log_loss_sum)


class ClickTask:
    """`click_loss`, binary cross entropy with self-distillation where a model has streams; AUC and log loss."""

    monitor = "validation_auc"

    def loss_sum(self, model: nn.Module, batch: Batch) -> Loss:
        """Sum of binary cross entropies, in nats; the model is in training mode, so it may answer (B, 1 + S)."""
        outputs: Tensor = model(batch.dense, batch.sparse).float()[: batch.labels.numel()]
        return click_loss(outputs, batch.labels)

    def evaluate(self, session: Scorer, source: BatchSource) -> dict[str, float]:
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
