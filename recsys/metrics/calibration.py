"""Calibration maps: from a model's logits to logits whose probabilities agree with what happens.

Fit them on validation rows, never on those they are judged by. `apply` answers logits, as models do, so what takes a
model's logits takes these. Platt's line ranks as before; isotonic makes ties, so AUC may move a little.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.metrics.checks import one_class_reason, refuse_rows
from recsys.metrics.score_counts import ScoreCounts

MAX_STEPS = 100
"""Newton steps; ten are usual."""
GRADIENT_TOLERANCE = 1e-12
"""Of the mean gradient, against logits of unit spread."""


@dataclass(frozen=True, kw_only=True)
class PlattCalibration:
    """slope * logit + intercept. A slope below 1 says that the model was too sure, below 0 that it ranked backwards."""

    slope: float
    intercept: float

    def apply(self, logits: Tensor) -> Tensor:
        """Calibrated logits float64, of the shape of logits (any)."""
        # A slope of 0 knows nothing of the logit, infinite ones included; 0 * inf would be NaN.
        scaled = logits.double() * self.slope if self.slope else torch.zeros_like(logits, dtype=torch.float64)
        return scaled + self.intercept


@dataclass(frozen=True, eq=False, kw_only=True)
class IsotonicCalibration:
    """A non-decreasing piecewise linear map of logits to probabilities; constant beyond its ends."""

    knots: Tensor
    """(K,), float64, ascending, distinct: logits."""
    probabilities: Tensor
    """(K,), float64, in [0, 1], not descending. 0 and 1 are possible at the ends, where all rows were of one class."""

    def apply(self, logits: Tensor) -> Tensor:
        """Calibrated logits float64, of the shape of logits (any); -inf and inf where the probability is 0 or 1."""
        x = logits.double().clamp(self.knots[0], self.knots[-1])
        if self.knots.numel() == 1:
            return torch.logit(self.probabilities[0]).expand_as(x).clone()
        right = torch.searchsorted(self.knots, x).clamp(1, self.knots.numel() - 1)
        low, high = self.knots[right - 1], self.knots[right]
        # Ends are hit exactly: lerp answers its second end at weight 1.
        return torch.logit(
            torch.lerp(self.probabilities[right - 1], self.probabilities[right], (x - low) / (high - low))
        )


def fit_platt(counts: ScoreCounts) -> PlattCalibration:
    """Fit slope and intercept by maximum likelihood, in float64, by Newton's method with step halving.

    As Platt does, targets are pulled in a little, by what one more row of each class would: so that there is a fit
    where the logits separate the classes, too.

    Args:
        counts: of finite logits; weights are taken as numbers of rows.
    Returns:
        The fit; slope 0 where all logits are equal.
    Raises:
        DataError: no rows, rows of one class, or an infinite logit.
    Source: Platt, 1999, "Probabilistic outputs for support vector machines"; Lin, Lin and Weng, 2007, "A note on
        Platt's probabilistic outputs", for the method.
    """
    logits = _fittable(counts, "Platt")
    positives, negatives = counts.positives.double(), counts.negatives.double()
    up = float((positives.sum() + 1) / (positives.sum() + 2))
    down = float(1 / (negatives.sum() + 2))
    # (S,) each: rows, and the sum of their targets.
    mass, target = positives + negatives, positives * up + negatives * down
    centre = float((logits * mass).sum() / mass.sum())
    spread = float(((logits - centre) ** 2 * mass).sum() / mass.sum()) ** 0.5
    rate = float(target.sum() / mass.sum())
    if spread == 0:
        return PlattCalibration(slope=0.0, intercept=math.log(rate / (1 - rate)))
    scaled = torch.stack([(logits - centre) / spread, torch.ones_like(logits)], dim=1)
    slope, intercept = _newton(scaled, mass / mass.sum(), target / mass.sum(), rate).tolist()
    return PlattCalibration(slope=slope / spread, intercept=intercept - slope * centre / spread)


def fit_isotonic(counts: ScoreCounts) -> IsotonicCalibration:
    """Fit the non-decreasing map of least squares (and of greatest likelihood): exact, by pooling adjacent violators.

    Args:
        counts: of finite logits; weights are taken as numbers of rows.
    Returns:
        The fit: each pooled block's rate at both its ends, straight lines between blocks.
    Raises:
        DataError: no rows, rows of one class, or an infinite logit.
    Source: Zadrozny and Elkan, KDD 2002, "Transforming classifier scores into accurate multiclass probability
        estimates"; Ayer et al., 1955.
    """
    logits = _fittable(counts, "isotonic")
    ends = _pooled(counts.positives, counts.positives + counts.negatives)
    starts = torch.cat([ends.new_zeros(1), ends[:-1] + 1])
    lengths = ends - starts + 1
    block = torch.repeat_interleave(lengths)
    empty = torch.zeros(ends.numel(), dtype=torch.float64, device=ends.device)
    found = empty.index_add(0, block, counts.positives.double())
    rates = found / empty.index_add(0, block, (counts.positives + counts.negatives).double())
    keep = torch.stack([torch.ones_like(lengths, dtype=torch.bool), lengths > 1], dim=1).flatten()
    places = torch.stack([starts, ends], dim=1).flatten()[keep]
    return IsotonicCalibration(knots=logits[places], probabilities=rates.repeat_interleave(2)[keep])


def _fittable(counts: ScoreCounts, name: str) -> Tensor:
    """Logits float64 (S,), S >= 2 or one score of both classes."""
    if reason := one_class_reason(counts.num_positives, counts.num_rows):
        raise DataError(f"{name} calibration cannot be fitted, because {reason}. Fit it on rows of both classes.")
    logits = counts.scores.double()
    refuse_rows(torch.isinf(logits), "distinct logits", "infinite", "A calibration map needs finite logits to fit.")
    return logits


def _newton(inputs: Tensor, mass: Tensor, target: Tensor, rate: float) -> Tensor:
    """Minimise the mean log loss over weights float64 (2,) of inputs (S, 2), from the base rate."""

    def loss_of(point: Tensor) -> float:
        margin = inputs @ point
        return float((mass * torch.nn.functional.softplus(margin) - target * margin).sum())

    point = inputs.new_tensor([0.0, math.log(rate / (1 - rate))])
    loss = loss_of(point)
    for _ in range(MAX_STEPS):
        probability = torch.sigmoid(inputs @ point)
        gradient = inputs.T @ (mass * probability - target)
        if float(gradient.abs().max()) < GRADIENT_TOLERANCE:
            break
        curvature = inputs.T @ (inputs * (mass * probability * (1 - probability))[:, None])
        step = torch.linalg.solve(curvature, gradient)
        while (tried := loss_of(point - step)) > loss:
            step = step / 2
            if float(step.abs().max()) < 1e-15:  # nothing but rounding is left
                return point
        point, loss = point - step, tried
    return point


def _pooled(positives: Tensor, rows: Tensor) -> Tensor:
    """Last position int64 (K,) of each block of the isotonic fit of rates positives / rows, (S,) each.

    Blocks are compared by cross products, in int64 for counts: exact up to 3e9 rows.
    """
    ends = torch.arange(positives.numel(), device=positives.device)
    while True:  # pool runs of violators all at once as long as that pays
        found = positives[:-1] * rows[1:] >= positives[1:] * rows[:-1]
        num_violators = int(found.sum())
        if num_violators == 0:
            return ends
        if num_violators * 10 < positives.numel():
            break
        last = torch.cat([~found, found.new_ones(1)])
        block = torch.cat([found.new_zeros(1), ~found]).long().cumsum(0)
        ends = ends[last]
        empty = torch.zeros_like(rows[: ends.numel()])
        positives, rows = empty.index_add(0, block, positives), empty.index_add(0, block, rows)
    return ends[_pooled_one_by_one(positives.tolist(), rows.tolist())]


def _pooled_one_by_one(positives: list[float], rows: list[float]) -> list[int]:
    """The last position of each block, as `_pooled`: every block is pushed once and popped at most once."""
    stack: list[tuple[float, float, int]] = []
    for position, (found, mass) in enumerate(zip(positives, rows, strict=True)):
        while stack and stack[-1][0] * mass >= found * stack[-1][1]:
            below = stack.pop()
            found, mass = found + below[0], mass + below[1]
        stack.append((found, mass, position))
    return [position for _, _, position in stack]
