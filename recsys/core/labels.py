"""What a label is: a click or a number, and what a model's outputs mean then."""

from dataclasses import dataclass
from enum import Enum

from torch import Tensor


class LabelKind(Enum):
    """What the label column holds, and with it the loss, the metrics and what is served."""

    CLICK = "click"  # 0 or 1; a model's outputs are log-odds
    NUMBER = "number"  # any finite number, as stars are; outputs are in standard deviations from the mean of train


NUMBER_COLUMNS = ("label", "prediction")
"""What predictions of number labels hold of every row, beside its passthrough columns."""


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
