"""Quality of predicted probabilities: log loss, normalised entropy, calibration."""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from recsys.metrics.checks import check_labels, one_class_reason
from recsys.metrics.value import MetricValue

NO_ROWS = "there are no rows"


def log_loss(labels: Tensor, logits: Tensor) -> MetricValue:
    """Mean negative log likelihood in nats, from logits, so that no probability is ever clipped.

    Args:
        labels: (N,), any dtype, each 0 or 1.
        logits: (N,), floating point; +-inf means certainty.
    Returns:
        Computed and averaged in float64. Undefined for no rows, or when a row is certain of the wrong label (the loss
        is infinite).
    Raises:
        DataError: shapes differ, a label is neither 0 nor 1, or a logit is NaN.
    """
    positive = check_labels(labels, logits, "logits")
    if positive.numel() == 0:
        return MetricValue.undefined(NO_ROWS)
    margins = logits.double()
    # -log sigmoid(x) for a positive, -log sigmoid(-x) for a negative; unlike x - x*y it is right at +-inf.
    losses = -logsigmoid(torch.where(positive, margins, -margins))
    num_infinite = int(torch.isinf(losses).sum())
    if num_infinite:
        return MetricValue.undefined(f"{num_infinite} row(s) are certain of the wrong label, so the loss is infinite")
    return MetricValue.of(float(losses.mean()))


def normalized_entropy(labels: Tensor, logits: Tensor) -> MetricValue:
    """Log loss over the log loss of always predicting the mean label: below 1 is better than knowing nothing.

    Args:
        labels, logits: as for `log_loss`.
    Returns:
        Undefined for one class, and where the log loss is.
    Raises:
        DataError: as `log_loss`.
    Source: He et al., ADKDD 2014, "Practical lessons from predicting clicks on ads at Facebook", section 3.
    """
    loss = log_loss(labels, logits)
    num_positives = int((labels != 0).sum())
    if reason := one_class_reason(num_positives, labels.numel()):
        return MetricValue.undefined(reason)
    rate = num_positives / labels.numel()
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))
    return loss if loss.value is None else MetricValue.of(loss.value / entropy)


def calibration_ratio(labels: Tensor, probabilities: Tensor) -> MetricValue:
    """Mean prediction over mean label: 1 is calibrated, above 1 predicts too much.

    Args:
        labels: (N,), any dtype, each 0 or 1.
        probabilities: (N,), each in [0, 1].
    Returns:
        Undefined without rows or without a positive label.
    Raises:
        DataError: shapes differ, a label is neither 0 nor 1, or a probability is NaN.
    Source: He et al., ADKDD 2014, section 3.
    """
    positive = check_labels(labels, probabilities, "probabilities")
    num_positives = int(positive.sum())
    if num_positives == 0:
        return MetricValue.undefined(one_class_reason(num_positives, positive.numel()))
    return MetricValue.of(float(probabilities.sum(dtype=torch.float64)) / num_positives)
