"""Drift of a distribution over bins, such as values of a feature, from one set of rows to another."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.metrics.checks import refuse_rows
from recsys.metrics.value import MetricValue

EMPTY_BIN_ROWS = 0.5
"""What an empty bin counts, in rows, where the other side has any; otherwise its term would be infinite."""


@dataclass(frozen=True, kw_only=True)
class StabilityIndex:
    """A PSI, what it rests on, and what to expect of no drift at all."""

    index: MetricValue
    by_chance: MetricValue  # expected index if both sides were drawn from one distribution
    num_bins: int  # with a row on either side
    num_vanished: int  # bins of the expected side that the actual side lacks
    num_appeared: int  # bins of the actual side that the expected side lacks
    vanished_share: MetricValue  # of the expected rows
    appeared_share: MetricValue  # of the actual rows


def population_stability_index(expected: Tensor, actual: Tensor) -> StabilityIndex:
    """Sum over bins of (a - e) ln(a / e), where e and a are the shares of rows in a bin: symmetric, 0 for no drift.

    By custom .1 is worth a look and .25 a large drift; that holds for ten bins or so. Noise alone gives about
    (bins - 1) (1 / expected rows + 1 / actual rows): compare with `by_chance` where bins are many.

    Args:
        expected, actual: (B,), rows in each bin, or their weight; finite, 0 or more, the same bins in the same order.
    Returns:
        Undefined when either side has no rows. Bins that are empty on both sides are left out. A bin that is empty on
        one side counts half a row there, so the index stays finite, though it grows with the rows of that side; how
        many such bins there are, and what share of rows they hold, is said.
    Raises:
        DataError: shapes differ, or a count is negative, NaN or infinite.
    Source: Lewis, 1994, "An introduction to credit scoring" (the index); Yurdakul and Naranjo, 2020, "Statistical
        properties of the population stability index" (its mean by chance).
    """
    before, after = _checked(expected, "expected"), _checked(actual, "actual")
    if before.shape != after.shape:
        raise DataError(
            f"expected counts have shape {tuple(before.shape)}, actual ones {tuple(after.shape)}: count both sides in "
            "the same bins."
        )
    used = (before > 0) | (after > 0)
    before, after = before[used], after[used]
    totals = float(before.sum()), float(after.sum())
    appeared, vanished = before == 0, after == 0
    reason = "" if min(totals) > 0 else f"there are no {'expected' if totals[0] == 0 else 'actual'} rows"
    if reason:
        values = [MetricValue.undefined(reason)] * 4
    else:
        chance = (before.numel() - 1) * (1 / totals[0] + 1 / totals[1])
        shares = float(before[vanished].sum()) / totals[0], float(after[appeared].sum()) / totals[1]
        values = [MetricValue.of(value) for value in (_index(before, after), chance, *shares)]
    return StabilityIndex(
        index=values[0],
        by_chance=values[1],
        num_bins=before.numel(),
        num_vanished=int(vanished.sum()),
        num_appeared=int(appeared.sum()),
        vanished_share=values[2],
        appeared_share=values[3],
    )


def _index(before: Tensor, after: Tensor) -> float:
    before, after = (torch.where(side == 0, EMPTY_BIN_ROWS, side) for side in (before, after))
    e, a = before / before.sum(), after / after.sum()
    return float(((a - e) * (a.log() - e.log())).sum())


def _checked(counts: Tensor, name: str) -> Tensor:
    if counts.dim() != 1:
        raise DataError(f"{name} counts have shape {tuple(counts.shape)}: pass one dimension, one count per bin.")
    values = counts.double()
    wrong = ~(torch.isfinite(values) & (values >= 0))
    refuse_rows(wrong, f"{name} counts", "negative, NaN or infinite", "A count says how many rows a bin has.")
    return values
