"""What is learned: the loss of a batch and the figures of a split. The trainer knows neither labels nor metrics."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from recsys.core.batch import Batch, BatchSource
from recsys.core.errors import ConfigError
from recsys.core.loss import Loss
from recsys.metrics import MetricValue, auc, log_loss
from recsys.train.score import Scorer, Scores, score
from recsys.train.session import Session

MEAN_AUC = "validation_mean_auc"
"""Mean of the AUCs of all labels that have one."""


class Task(Protocol):
    """A loss and a validation."""

    @property
    def monitor(self) -> str:
        """Key of `evaluate`'s figures that chooses the best epoch; higher is better."""

    def loss_sum(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of the batch's rows."""

    def evaluate(self, session: Session, source: BatchSource) -> dict[str, float]:
        """Figures of a split, equal on every rank."""


def click_loss(outputs: Tensor, labels: Tensor, weights: Tensor | None = None) -> Loss:
    """Sum over rows of BCE(logits, labels), and of BCE(stream, sigmoid(logits)) for each stream of the model.

    The first alone is reported.

    Streams learn from the logits, never the reverse: no gradient flows through the probabilities taught.

    Args:
        outputs: float32 (B,), the logits; or (B, 1 + S), column 0 the logits, the others those of S streams; or, of T
            tasks, (B, T).
        labels: float32 (B,), 0 or 1; of T tasks (B, T), whose cross entropies are added up.
        weights: float32 (B,), times which each row's losses count; None: all count once.

    Returns:
        nats.
    Source: Zhu et al., FINAL, SIGIR 2023 (self-distillation); weights 1, as in FuxiCTR.
    """
    if labels.dim() == 2:
        by_row = None if weights is None else weights.unsqueeze(1)
        log_loss_sum = binary_cross_entropy_with_logits(outputs, labels, by_row, reduction="sum")
        return Loss(log_loss_sum, log_loss_sum)
    if outputs.dim() == 1:
        log_loss_sum = binary_cross_entropy_with_logits(outputs, labels, weights, reduction="sum")
        return Loss(log_loss_sum, log_loss_sum)
    logits, streams = outputs[:, 0], outputs[:, 1:]
    taught = logits.detach().sigmoid().unsqueeze(1).expand_as(streams)
    log_loss_sum = binary_cross_entropy_with_logits(logits, labels, weights, reduction="sum")
    by_row = None if weights is None else weights.unsqueeze(1)
    stream_sum = binary_cross_entropy_with_logits(streams, taught, by_row, reduction="sum")
    return Loss(log_loss_sum + stream_sum, log_loss_sum)


class ClickTask:
    """`click_loss`, binary cross entropy with self-distillation where a model has streams; AUC and log loss.

    Of several tasks the mean of their AUCs chooses the best epoch.
    """

    def __init__(self, other_labels: Sequence[str] = ()) -> None:
        """`other_labels`: names of the tasks that are learned behind the main one."""
        self._other_labels = tuple(other_labels)
        self.monitor = MEAN_AUC if other_labels else "validation_auc"

    def loss_sum(self, model: nn.Module, batch: Batch) -> Loss:
        """Sum of binary cross entropies, in nats; the model is in training mode, so it may answer (B, 1 + S).

        Rows count by their weights, relative to the mean one of the global batch: over the batch's number of rows the
        sum is the mean by weight, in which a row of weight 2 counts as two rows and one of weight 0 as none. Batch norm
        does not know of weights.
        """
        outputs: Tensor = model(batch.dense, batch.sparse).float()[: batch.labels.shape[0]]
        loss = click_loss(outputs, batch.labels, batch.weights)
        return Loss(loss.objective / batch.mean_weight, loss.reported / batch.mean_weight)

    def evaluate(self, session: Scorer, source: BatchSource) -> dict[str, float]:
        """Exact AUC and log loss, by weight where rows have weights; of other tasks `…_<label>` where defined.

        Raises:
            ConfigError: the split's rows are all of one class of the main label.
        """
        scores = score(session, source, "validation")
        found = _figures(scores.of(0))
        undefined = next((value.undefined_reason for value in found.values() if value.value is None), None)
        if undefined is not None:
            raise ConfigError(
                f"validation has no AUC, because {undefined}. Give the validation split rows of both labels."
            )
        for task, label in enumerate(self._other_labels, start=1):
            found |= {f"{key}_{label}": value for key, value in _figures(scores.of(task)).items()}
        figures = {key: value.value for key, value in found.items() if value.value is not None}
        areas = [value for key, value in figures.items() if key.startswith("validation_auc")]
        return figures | ({MEAN_AUC: sum(areas) / len(areas)} if self._other_labels else {})


def _figures(scores: Scores) -> dict[str, MetricValue]:
    """Of one task."""
    logits, labels, weights = scores
    return {
        "validation_auc": auc(labels, logits, weights),
        "validation_log_loss": log_loss(labels, logits, weights),
    }
