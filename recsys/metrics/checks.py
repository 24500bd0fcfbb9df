"""What every metric demands of its input, refused with the count and the first offending row."""

import torch
from torch import Tensor

from recsys.core.errors import DataError


def check_labels(labels: Tensor, values: Tensor, name: str) -> Tensor:
    """Validate one label and one value per row and return the labels as a mask of positives.

    Args:
        labels: (N,), any dtype, each 0 or 1.
        values: (N,), the scores, logits or probabilities called `name` in messages; not NaN, may be infinite.
    Returns:
        bool, (N,).
    Raises:
        DataError: shapes differ, a label is neither 0 nor 1, or a value is NaN.
    """
    if labels.dim() != 1 or labels.shape != values.shape:
        raise DataError(
            f"labels have shape {tuple(labels.shape)} and {name} {tuple(values.shape)}: metrics compare one label "
            "with one value per row. Pass two one-dimensional tensors of equal length."
        )
    refuse_rows((labels != 0) & (labels != 1), "labels", "neither 0 nor 1", "Map the label to 0 and 1 at ingest.")
    refuse_rows(torch.isnan(values), name, "NaN", "Look for a diverged training run or a missing input.")
    return labels != 0


def check_weights(weights: Tensor, labels: Tensor) -> Tensor:
    """Validate one weight per row.

    Args:
        weights: (N,), any real dtype, each finite and 0 or more; a row of weight 0 counts as absent.
        labels: (N,), whose shape it must have.
    Returns:
        float64, (N,).
    Raises:
        DataError: shapes differ, or a weight is negative, NaN or infinite.
    """
    if weights.shape != labels.shape:
        raise DataError(
            f"weights have shape {tuple(weights.shape)} and labels {tuple(labels.shape)}: pass one weight per row."
        )
    checked = weights.double()
    wrong = ~(torch.isfinite(checked) & (checked >= 0))
    refuse_rows(wrong, "weights", "negative, NaN or infinite", "A weight says how many rows one stands for.")
    return checked


def check_probabilities(probabilities: Tensor) -> None:
    """Refuse values (N,) that are no probabilities.

    Raises:
        DataError: a value is NaN or outside [0, 1].
    """
    wrong = ~((probabilities >= 0) & (probabilities <= 1))
    refuse_rows(wrong, "probabilities", "outside [0, 1]", "Pass the sigmoid of the logits.")


def refuse_rows(wrong: Tensor, name: str, what: str, fix: str) -> None:
    """Raise `DataError` when any element of the mask `wrong` (N,) is set, naming how many and the first.

    Raises:
        DataError: `wrong` has a true element.
    """
    num_wrong = int(wrong.sum())
    if num_wrong:
        first = int(wrong.nonzero()[0, 0])
        raise DataError(f"{name}: {num_wrong} of {wrong.numel()} value(s) {what}, the first at row {first}. {fix}")


def one_class_reason(num_positives: float, num_rows: float) -> str:
    """Why a metric that compares positives with negatives is undefined here; empty when it is defined.

    Args:
        num_positives, num_rows: int counts of rows, or float sums of their weights.
    """
    if num_rows == 0:
        return "there are no rows" if isinstance(num_rows, int) else "no row has a weight above 0"
    if num_positives in (0, num_rows):
        rows = f"all {num_rows} labels" if isinstance(num_rows, int) else "all labels of weight above 0"
        return f"{rows} are {0 if num_positives == 0 else 1}"
    return ""
