"""What a label is, a click or a number, and what labels and the scores of them are called in rows on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

LABEL = "__label__"
"""Column of encoded rows: the label, float32; before the name of another task's label: that one."""


class LabelKind(Enum):
    """What the label column holds, and with it the loss, the metrics and what is served."""

    CLICK = "click"  # 0 or 1; a model's outputs are log-odds
    NUMBER = "number"  # any finite number, as stars are; outputs are in standard deviations from the mean of train


PREDICTION_COLUMNS = ("label", "logit", "probability")
"""What predictions of clicks hold of every row, beside its passthrough columns."""

NUMBER_COLUMNS = ("label", "prediction")
"""What predictions of number labels hold of every row, beside its passthrough columns."""


def label_columns(labels: Sequence[str]) -> list[str]:
    """Columns of encoded rows that hold these labels of a schema, its main one first."""
    return [LABEL, *(LABEL + name for name in labels[1:])]


def score_columns(kind: LabelKind, labels: Sequence[str]) -> list[tuple[str, str]]:
    """What a model's output and what is made of it are called for each learned label, beside one another."""
    if kind is LabelKind.NUMBER:
        return [("output", "prediction")]
    return [("logit", "probability"), *((f"logit_{name}", f"probability_{name}") for name in labels[1:])]


@dataclass(frozen=True, kw_only=True)
class LabelStatistics:
    """Of the number labels of the training rows, each counted once, whatever its weight."""

    count: int
    mean: float
    std: float  # of the population, above 0

    def standardised(self, labels: Tensor) -> Tensor:
        """(label - mean) / std, float32, of labels of any shape."""
        # In float64: labels may be far from 0, as years and prices are, and close to one another.
        return ((labels.double() - self.mean) / self.std).float()

    def predictions(self, outputs: Tensor) -> Tensor:
        """Mean + std * output, float64, in the label's units, of outputs of any shape."""
        return self.mean + self.std * outputs.double()
