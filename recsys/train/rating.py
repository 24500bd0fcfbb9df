"""Learning labels that are numbers, such as stars."""

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from recsys.core.batch import Batch, BatchSource
from recsys.core.errors import ConfigError
from recsys.core.labels import LabelStatistics
from recsys.core.loss import Loss
from recsys.metrics import ErrorSums, mae_of, r2_of, rmse_of
from recsys.train.score import Scorer, score


def squared_loss(outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Loss:
    """Sum over rows of (output - target)², and of (stream - output)² for each stream of the model.

    The first alone is reported. Streams learn from the outputs, never the reverse, as `click_loss` has it: no gradient
    flows through the outputs taught.

    Args:
        outputs: float32 (B,); or (B, 1 + S), column 0 the outputs, the others those of S streams.
        targets: float32 (B,).
        weights: float32 (B,), times which each row's losses count; None: all count once.
    """
    own = outputs if outputs.dim() == 1 else outputs[:, 0]
    rows = mse_loss(own, targets, reduction="none")
    squared = (rows if weights is None else rows * weights).sum()
    if outputs.dim() == 1:
        return Loss(squared, squared)
    taught = (outputs[:, 1:] - own.detach().unsqueeze(1)) ** 2
    return Loss(squared + (taught if weights is None else taught * weights.unsqueeze(1)).sum(), squared)


class RatingTask:
    """Squared error of labels that are standardised by train, so that learning rates and limits fit any unit.

    A prediction is mean + std * output. What is reported is in the label's own units: the loss in their square.
    """

    monitor = "validation_r2"

    def __init__(self, label: LabelStatistics) -> None:
        self._label = label

    def loss_sum(self, model: nn.Module, batch: Batch) -> Loss:
        """Sum of squared errors of standardised labels, with streams where the model has them; weights count as for
        `ClickTask`. The reported sum is in the label's units squared.
        """
        outputs: Tensor = model(batch.dense, batch.sparse).float()[: batch.labels.numel()]
        loss = squared_loss(outputs, self._label.standardised(batch.labels), batch.weights)
        reported = loss.reported.double() * self._label.std**2
        return Loss(loss.objective / batch.mean_weight, reported / batch.mean_weight)

    def evaluate(self, session: Scorer, source: BatchSource) -> dict[str, float]:
        """R², RMSE and MAE, by weight where rows have weights. R² orders epochs as -RMSE does.

        Raises:
            ConfigError: all rows of the split have one label, or it has none.
        """
        outputs, labels, weights = score(session, source, "validation")
        sums = ErrorSums.of(labels, self._label.predictions(outputs), weights)
        found = {"validation_r2": r2_of(sums), "validation_rmse": rmse_of(sums), "validation_mae": mae_of(sums)}
        figures = {name: each.value for name, each in found.items() if each.value is not None}
        if len(figures) < len(found):
            reason = next(each.undefined_reason for each in found.values() if each.value is None)
            raise ConfigError(f"validation has no R², because {reason}. Give the validation split rows of two labels.")
        return figures
