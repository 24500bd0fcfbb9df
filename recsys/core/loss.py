"""What a task makes of a batch."""

from typing import NamedTuple

from torch import Tensor


class Loss(NamedTuple):
    """Sums over a batch's rows, float32 scalars."""

    objective: Tensor  # what is minimised, with gradient
    reported: Tensor  # what `train_loss` tells: comparable with validation's and between models
