"""Whether a model ranks worse within a slice than within all other rows: a test for each slice, adjusted for many."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from recsys.evaluate.held import HeldRows
from recsys.evaluate.result import Contrast
from recsys.evaluate.statistics import WEIGHTED
from recsys.metrics import (
    MetricValue,
    ScoreCounts,
    auc,
    auc_of,
    auc_standard_error,
    auc_standard_error_of,
    benjamini_hochberg,
)

MIN_OF_CLASS = 20
"""Positives and negatives needed on either side: an AUC of fewer is too far from normal for a p-value."""
MIN_GROUPS = 20
"""Groups needed with rows on either side, for the same reason."""


def contrast_of(inside: ScoreCounts, everything: ScoreCounts) -> Contrast:
    """Compare the AUC within some independent rows with that within the others, by DeLong's errors of both.

    Args:
        inside: of the slice's rows.
        everything: of all rows, the slice's among them.
    """
    if inside.weighted:
        return Contrast.undefined(WEIGHTED)
    outside = _without(everything, inside)
    if reason := _too_few((inside.num_positives, inside.num_negatives, outside.num_positives, outside.num_negatives)):
        return Contrast.undefined(reason)
    errors = [auc_standard_error_of(counts) for counts in (inside, outside)]
    undefined = next((error for error in errors if error.value is None), None)
    if undefined is not None:
        return Contrast.undefined(undefined.undefined_reason)
    difference = auc_of(inside).value_or(0) - auc_of(outside).value_or(0)
    return _tested(difference, math.hypot(*(error.value_or(0) for error in errors)))


def contrast_by_group(held: HeldRows, inside: Tensor) -> Contrast:
    """The same where rows of one group depend on each other, also those on different sides.

    Args:
        held: all rows.
        inside: bool (N,): rows of the slice.
    Source: the AUC's first-order term for each row (DeLong et al., 1988), summed by group as Obuchowski, 1997, does;
        both sides in one sum, so that the covariance of the sides is in it.
    """
    index, sides = held.clusters.index, (inside, ~inside)
    classes = [int(((held.labels != 0) == positive)[side].sum()) for side in sides for positive in (True, False)]
    if reason := _too_few(classes):
        return Contrast.undefined(reason)
    num_groups = min(torch.unique(index[side]).numel() for side in sides)
    if num_groups < MIN_GROUPS:
        return Contrast.undefined(f"only {num_groups} groups on one side, fewer than {MIN_GROUPS}")
    for side in sides:
        error = auc_standard_error(held.labels[side], held.logits[side], index[side])
        if error.value is None:
            return Contrast.undefined(error.undefined_reason)
    terms = torch.zeros(held.clusters.num_clusters, dtype=torch.float64)
    for side, sign in zip(sides, (1, -1), strict=True):
        terms.index_add_(0, index[side], sign * _influence(held.labels[side], held.logits[side]))
    total = torch.unique(index).numel()
    difference = auc(held.labels[inside], held.logits[inside]).value_or(0)
    difference -= auc(held.labels[~inside], held.logits[~inside]).value_or(0)
    return _tested(difference, math.sqrt(total / (total - 1) * float((terms**2).sum())))


def adjusted(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """The same with p-values adjusted over all that have one, by Benjamini and Hochberg."""
    tested = [contrast.p_value.value for contrast in contrasts if contrast.p_value.value is not None]
    found = iter(benjamini_hochberg(torch.tensor(tested, dtype=torch.float64)).tolist())
    return [
        replace(
            contrast, adjusted_p_value=MetricValue.of(next(found)) if contrast.p_value.defined else contrast.p_value
        )
        for contrast in contrasts
    ]


def _tested(difference: float, error: float) -> Contrast:
    if error == 0:
        return Contrast.undefined("the scores of the classes do not vary against each other")
    p_value = MetricValue.of(math.erfc(abs(difference) / error / math.sqrt(2)))
    return Contrast(
        difference=MetricValue.of(difference),
        standard_error=MetricValue.of(error),
        p_value=p_value,
        adjusted_p_value=MetricValue.undefined("not adjusted yet"),
    )


def _too_few(classes: Sequence[float]) -> str:
    if min(classes) >= MIN_OF_CLASS:
        return ""
    return f"only {int(min(classes))} rows of one class inside or outside, fewer than {MIN_OF_CLASS}"


def _without(everything: ScoreCounts, inside: ScoreCounts) -> ScoreCounts:
    """Counts of the rows that are in the first and not in the second."""
    place = torch.searchsorted(everything.scores, inside.scores)
    positives = everything.positives.index_add(0, place, -inside.positives)
    negatives = everything.negatives.index_add(0, place, -inside.negatives)
    left = (positives > 0) | (negatives > 0)
    return ScoreCounts(everything.scores[left], positives[left], negatives[left])


def _influence(labels: Tensor, logits: Tensor) -> Tensor:
    """What each row adds to the deviation of the AUC from its expectation, float64 (N,); sums to 0."""
    positive = labels != 0
    found = torch.empty(labels.numel(), dtype=torch.float64)
    for mine, sign in ((positive, 1), (~positive, -1)):
        others = logits[~mine].sort().values
        scores = logits[mine].contiguous()
        doubled = torch.searchsorted(others, scores) + torch.searchsorted(others, scores, right=True)
        share = doubled.double() / (2 * others.numel())
        found[mine] = sign * (share - share.mean()) / scores.numel()
    return found
