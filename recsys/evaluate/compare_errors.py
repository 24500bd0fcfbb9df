"""Errors of a difference between methods: over samples of rows, over seeds, and over both."""

import math
from collections.abc import Sequence

from recsys.evaluate.compared import Values
from recsys.metrics import MetricValue


def is_unvarying(error: MetricValue) -> bool:
    """Whether an error is undefined because every sample of the rows gives the same difference."""
    return "not vary" in error.undefined_reason


def seed_error_of(first: Values, second: Values) -> tuple[MetricValue, float]:
    """(Standard error of the difference of means over other seeds, degrees of freedom).

    A method with one run is taken to vary as much as the other. Runs share the test rows, so this holds the part of
    the rows' error that differs between runs once more: errors come out too large rather than too small.

    Source: Welch, 1947, "The generalization of 'Student's' problem when several different population variances are
        involved".
    """
    sides = [(len(side.by_run), side.seed_deviation.value) for side in (first, second)]
    known = [(number, deviation) for number, deviation in sides if deviation is not None]
    if not known:
        return MetricValue.undefined("one run of each method: nothing is known of other seeds"), math.inf
    if len(known) == 1:
        ((number, deviation),) = known
        return MetricValue.of(deviation * sum(1 / runs for runs, _ in sides) ** 0.5), number - 1
    variances = [deviation**2 / number for number, deviation in known]
    return MetricValue.of(sum(variances) ** 0.5), _degrees(variances, [number - 1 for number, _ in known])


def joined_error(
    difference: MetricValue, rows: tuple[MetricValue, float], seeds: tuple[MetricValue, float]
) -> tuple[MetricValue, float]:
    """(Standard error of both, degrees of freedom); of rows that make a difference all alike, that of seeds alone."""
    row_error, seed_error = rows[0], seeds[0]
    if difference.value and is_unvarying(row_error) and seed_error.value:
        return seeds
    if row_error.value is None or seed_error.value is None:
        return rows
    parts = [row_error.value**2, seed_error.value**2]
    return MetricValue.of(sum(parts) ** 0.5), _degrees(parts, [rows[1], seeds[1]])


def _degrees(variances: Sequence[float], degrees: Sequence[float]) -> float:
    """Of a sum of independent estimates of variance, after Welch and Satterthwaite."""
    below = sum(variance**2 / of for variance, of in zip(variances, degrees, strict=True))
    return sum(variances) ** 2 / below if below > 0 else math.inf
