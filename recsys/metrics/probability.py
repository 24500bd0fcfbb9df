"""Quality of predicted probabilities: log loss, normalised entropy, information gain, Brier score, calibration.

Functions that end in `_of` take `ScoreCounts` of logits, which add up over files; the others take rows, unsorted.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from recsys.metrics.checks import check_labels, check_probabilities, check_weights, one_class_reason
from recsys.metrics.score_counts import ScoreCounts
from recsys.metrics.value import MetricValue


def log_loss(labels: Tensor, logits: Tensor, weights: Tensor | None = None) -> MetricValue:
    """Mean negative log likelihood in nats, from logits, so that no probability is ever clipped.

    Args:
        labels: (N,), any dtype, each 0 or 1.
        logits: (N,), floating point; +-inf means certainty.
        weights: (N,), finite and 0 or more: how many rows each stands for; without, each for itself.
    Returns:
        Computed and averaged in float64. Undefined for no rows, or when a row is certain of the wrong label (the loss
        is infinite).
    Raises:
        DataError: shapes differ, a label is neither 0 nor 1, a logit is NaN, or a weight is impossible.
    """
    positive = check_labels(labels, logits, "logits")
    margins = logits.double()
    margins = torch.where(positive, margins, -margins)
    if weights is None:
        return _mean_loss(margins, torch.ones_like(positive, dtype=torch.int64))
    return _mean_loss(margins, check_weights(weights, labels))


def log_loss_of(counts: ScoreCounts) -> MetricValue:
    """`log_loss` of the rows behind `counts`, whose scores are logits."""
    logits = counts.scores.double()
    return _mean_loss(torch.cat([logits, -logits]), torch.cat([counts.positives, counts.negatives]))


def normalized_entropy(labels: Tensor, logits: Tensor, weights: Tensor | None = None) -> MetricValue:
    """Log loss over the log loss of always predicting the mean label: below 1 is better than knowing nothing.

    Args:
        labels, logits, weights: as for `log_loss`.
    Returns:
        Undefined for one class, and where the log loss is.
    Raises:
        DataError: as `log_loss`.
    Source: He et al., ADKDD 2014, "Practical lessons from predicting clicks on ads at Facebook", section 3.
    """
    loss = log_loss(labels, logits, weights)
    return _over_entropy(loss, *_class_sizes(labels, weights))


def normalized_entropy_of(counts: ScoreCounts) -> MetricValue:
    """`normalized_entropy` of the rows behind `counts`, whose scores are logits."""
    return _over_entropy(log_loss_of(counts), counts.num_positives, counts.num_negatives)


def relative_information_gain(labels: Tensor, logits: Tensor, weights: Tensor | None = None) -> MetricValue:
    """Share of the labels' entropy that the predictions explain: 1 - normalised entropy; 0 is the mean label's.

    Args:
        labels, logits, weights: as for `log_loss`.
    Returns:
        At most 1; negative when worse than the mean label. Undefined as `normalized_entropy`.
    Raises:
        DataError: as `log_loss`.
    Source: Graepel et al., ICML 2010, "Web-scale Bayesian click-through rate prediction", section 6; He et al.
    """
    return _complement(normalized_entropy(labels, logits, weights))


def relative_information_gain_of(counts: ScoreCounts) -> MetricValue:
    """`relative_information_gain` of the rows behind `counts`, whose scores are logits."""
    return _complement(normalized_entropy_of(counts))


def brier_score(labels: Tensor, probabilities: Tensor, weights: Tensor | None = None) -> MetricValue:
    """Mean squared difference of probability and label: 0 is perfect, and no row can cost more than 1.

    Args:
        labels: (N,), any dtype, each 0 or 1.
        probabilities: (N,), each in [0, 1].
        weights: (N,), as for `log_loss`.
    Returns:
        Computed and averaged in float64. Undefined for no rows.
    Raises:
        DataError: shapes differ, a label is neither 0 nor 1, a probability is none, or a weight is impossible.
    Source: Brier, 1950, "Verification of forecasts expressed in terms of probability", for two classes, of one.
    """
    positive = check_labels(labels, probabilities, "probabilities")
    check_probabilities(probabilities)
    mass = torch.ones_like(positive, dtype=torch.int64) if weights is None else check_weights(weights, labels)
    return _mean((probabilities.double() - positive.double()) ** 2, mass)


def brier_score_of(counts: ScoreCounts) -> MetricValue:
    """`brier_score` of the rows behind `counts`, whose scores are logits."""
    logits = counts.scores.double()
    missed = torch.sigmoid(torch.cat([-logits, logits]))  # 1 - p of positives, p of negatives, both to the last digit
    return _mean(missed**2, torch.cat([counts.positives, counts.negatives]))


def calibration_ratio(labels: Tensor, probabilities: Tensor, weights: Tensor | None = None) -> MetricValue:
    """Mean prediction over mean label: 1 is calibrated, above 1 predicts too much.

    Args:
        labels, probabilities, weights: as for `brier_score`.
    Returns:
        Undefined without rows or without a positive label.
    Raises:
        DataError: as `brier_score`.
    Source: He et al., ADKDD 2014, section 3.
    """
    check_labels(labels, probabilities, "probabilities")
    check_probabilities(probabilities)
    num_positives, num_negatives = _class_sizes(labels, weights)
    if num_positives == 0:
        return MetricValue.undefined(one_class_reason(num_positives, num_positives + num_negatives))
    predicted = probabilities.double() if weights is None else probabilities.double() * weights.double()
    return MetricValue.of(float(predicted.sum()) / num_positives)


def calibration_ratio_of(counts: ScoreCounts) -> MetricValue:
    """`calibration_ratio` of the rows behind `counts`, whose scores are logits."""
    num_positives = counts.num_positives
    if num_positives == 0:
        return MetricValue.undefined(one_class_reason(num_positives, counts.num_rows))
    predicted = torch.sigmoid(counts.scores.double()) * (counts.positives + counts.negatives)
    return MetricValue.of(float(predicted.sum()) / num_positives)


def label_entropy(num_positives: float, num_negatives: float) -> float:
    """Entropy in nats of labels with these counts or weights, both above 0: the log loss of the mean label."""
    small = min(num_positives, num_negatives) / (num_positives + num_negatives)
    # In terms of the rarer class: 1 - small may round to 1, whose logarithm is 0.
    return -(small * math.log(small) + (1 - small) * math.log1p(-small)) if small > 0 else 0.0


def row_losses(margins: Tensor) -> Tensor:
    """Negative log likelihood float64 (N,) of rows whose logits (N,), negated for negatives, are `margins`."""
    # -log sigmoid(x) for a positive, -log sigmoid(-x) for a negative; unlike x - x*y it is right at +-inf.
    return -logsigmoid(margins.double())


def _mean_loss(margins: Tensor, mass: Tensor) -> MetricValue:
    losses, mass = row_losses(margins[mass > 0]), mass[mass > 0]
    infinite = torch.isinf(losses)
    num_infinite = int(infinite.sum() if mass.is_floating_point() else mass[infinite].sum())
    if num_infinite:
        return MetricValue.undefined(f"{num_infinite} row(s) are certain of the wrong label, so the loss is infinite")
    return _mean(losses, mass)


def _mean(values: Tensor, mass: Tensor) -> MetricValue:
    """Mean of `values` float64 (M,), each of `mass` (M,), int64 for rows or float64 for weights."""
    total = mass.sum().item()
    if total == 0:
        return MetricValue.undefined(one_class_reason(0, total))
    return MetricValue.of(float((values * mass).sum()) / total)


def _class_sizes(labels: Tensor, weights: Tensor | None) -> tuple[float, float]:
    """(positives, negatives): counts, or sums of weights."""
    if weights is None:
        num_positives = int((labels != 0).sum())
        return num_positives, labels.numel() - num_positives
    mass = check_weights(weights, labels)
    return float(mass[labels != 0].sum()), float(mass[labels == 0].sum())


def _over_entropy(loss: MetricValue, num_positives: float, num_negatives: float) -> MetricValue:
    if reason := one_class_reason(num_positives, num_positives + num_negatives):
        return MetricValue.undefined(reason)
    entropy = label_entropy(num_positives, num_negatives)
    if entropy == 0:
        return MetricValue.undefined("one class has next to no weight, so the entropy of the labels rounds to 0")
    return loss if loss.value is None else MetricValue.of(loss.value / entropy)


def _complement(value: MetricValue) -> MetricValue:
    return value if value.value is None else MetricValue.of(1 - value.value)
