"""What another policy would have earned, from logs of the policy that was live, whose propensities were logged.

All estimators weigh a logged row by w = target / propensity: how much likelier the new policy was to act as logged.
They assume that the propensities are those under which the action was really drawn, and that the live policy could
take every action that the new one takes; the mean weight, which should be 1, tells when that fails.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import ConfigError, DataError
from recsys.metrics.checks import refuse_rows
from recsys.metrics.value import MetricValue

NO_ROWS = "there are no rows"


@dataclass(frozen=True, kw_only=True)
class PolicyValue:
    """Mean reward that the target policy would have had per row, and how much of the data speaks for it."""

    value: MetricValue
    standard_error: MetricValue
    effective_rows: MetricValue  # (sum w)^2 / sum w^2 of the clipped weights: rows of equal weight with that variance
    mean_weight: MetricValue  # before clipping; far from 1, the propensities are wrong or do not cover the target
    max_weight: MetricValue  # before clipping
    num_rows: int
    num_clipped: int


@dataclass(frozen=True, eq=False, kw_only=True)
class LoggedRows:
    """N logged rows: what was earned, how likely the action was then, how likely the target policy takes it.

    Raises:
        DataError: shapes differ, a reward is not finite, a propensity is outside (0, 1], a target outside [0, 1].
    """

    rewards: Tensor
    """(N,), finite; such as clicks."""
    propensities: Tensor
    """(N,), in (0, 1]: probability of the logged action under the policy that took it."""
    targets: Tensor
    """(N,), in [0, 1]: probability of the logged action under the policy asked about."""
    groups: Tensor
    """(N,), integer: rows of one group, such as a user, may depend on each other; torch.arange(N) if none do."""

    def __post_init__(self) -> None:
        shapes = {name: tuple(getattr(self, name).shape) for name in self.__dataclass_fields__}
        if self.rewards.dim() != 1 or len(set(shapes.values())) > 1:
            raise DataError(f"logged rows have shapes {shapes}: pass one value of each per row.")
        refuse_rows(~torch.isfinite(self.rewards.double()), "rewards", "not finite", "Drop rows without an outcome.")
        refuse_rows(
            ~((self.propensities > 0) & (self.propensities <= 1)),
            "propensities",
            "outside (0, 1]",
            "An action that was taken had a probability above 0: log it when acting, do not estimate 0 afterwards.",
        )
        wrong = ~((self.targets >= 0) & (self.targets <= 1))
        refuse_rows(wrong, "targets", "outside [0, 1]", "Pass the probability of the logged action.")


def inverse_propensity(rows: LoggedRows, *, max_weight: float = math.inf) -> PolicyValue:
    """IPS: the mean of w times reward. Unbiased without clipping; its variance grows with the weights.

    Args:
        rows: logged.
        max_weight: weights above are clipped to it, which biases positive rewards down and calms the variance.
    Returns:
        Undefined without rows; its error with fewer than two groups.
    Raises:
        ConfigError: max_weight <= 0.
    Source: Horvitz and Thompson, 1952; clipping: Ionides, 2008, "Truncated importance sampling".
    """
    weights, clipped = _weights(rows, max_weight)
    terms = clipped * rows.rewards.double()
    return _policy_value(weights, clipped, _mean(terms), _grouped_error(terms, rows.groups))


def self_normalized(rows: LoggedRows, *, max_weight: float = math.inf) -> PolicyValue:
    """SNIPS: the mean reward weighted by w. Within the range of rewards; biased by an order of 1 / N; far steadier.

    Args:
        rows, max_weight: as for `inverse_propensity`.
    Returns:
        Undefined without rows or when all weights are 0; its error, by the delta method, with fewer than two groups.
    Raises:
        ConfigError: max_weight <= 0.
    Source: Swaminathan and Joachims, NeurIPS 2015, "The self-normalized estimator for counterfactual learning".
    """
    weights, clipped = _weights(rows, max_weight)
    total = float(clipped.sum())
    if total == 0:
        reason = "the target policy takes no action that was logged" if rows.rewards.numel() else NO_ROWS
        nothing = MetricValue.undefined(reason)
        return _policy_value(weights, clipped, nothing, nothing)
    rewards = rows.rewards.double()
    value = float((clipped * rewards).sum()) / total
    # The ratio's linear part, around its own value: what a row moves it by, times N.
    terms = value + clipped * (rewards - value) * (rewards.numel() / total)
    return _policy_value(weights, clipped, MetricValue.of(value), _grouped_error(terms, rows.groups))


def doubly_robust(
    rows: LoggedRows, *, predicted: Tensor, expected: Tensor, max_weight: float = math.inf
) -> PolicyValue:
    """DR: what a reward model expects of the target policy, corrected by w times its error on the logged action.

    Right when either the propensities or the model are; the better the model, the less the weights can disturb.

    Args:
        rows, max_weight: as for `inverse_propensity`; clipping leans on the model where weights are large.
        predicted: (N,), finite: the model's reward of the logged action.
        expected: (N,), finite: the model's reward averaged over the target policy's actions. Fit the model on other
            rows, or its errors are too small here.
    Returns:
        Undefined without rows; its error with fewer than two groups.
    Raises:
        DataError: predictions of another shape, or not finite. ConfigError: max_weight <= 0.
    Source: Dudík, Langford and Li, ICML 2011, arXiv:1103.4601, equation 1.
    """
    for name, values in (("predicted", predicted), ("expected", expected)):
        if values.shape != rows.rewards.shape:
            raise DataError(f"{name} rewards have shape {tuple(values.shape)}, rows {tuple(rows.rewards.shape)}.")
        refuse_rows(~torch.isfinite(values.double()), f"{name} rewards", "not finite", "Look at the reward model.")
    weights, clipped = _weights(rows, max_weight)
    terms = expected.double() + clipped * (rows.rewards.double() - predicted.double())
    return _policy_value(weights, clipped, _mean(terms), _grouped_error(terms, rows.groups))


def _weights(rows: LoggedRows, max_weight: float) -> tuple[Tensor, Tensor]:
    """(weights, clipped weights), float64 (N,)."""
    if not max_weight > 0:
        raise ConfigError(f"max_weight={max_weight}: clip weights to a number above 0, or to infinity not to clip.")
    weights = rows.targets.double() / rows.propensities.double()
    return weights, weights.clamp(max=max_weight)


def _policy_value(weights: Tensor, clipped: Tensor, value: MetricValue, error: MetricValue) -> PolicyValue:
    total, square = float(clipped.sum()), float((clipped**2).sum())
    effective = MetricValue.of(total / square * total if square else 0.0)
    return PolicyValue(
        value=value,
        standard_error=error,
        effective_rows=effective if weights.numel() else MetricValue.undefined(NO_ROWS),
        mean_weight=_mean(weights),
        max_weight=MetricValue.of(float(weights.max())) if weights.numel() else MetricValue.undefined(NO_ROWS),
        num_rows=weights.numel(),
        num_clipped=int((weights > clipped).sum()),
    )


def _mean(values: Tensor) -> MetricValue:
    return MetricValue.of(float(values.mean())) if values.numel() else MetricValue.undefined(NO_ROWS)


def _grouped_error(terms: Tensor, groups: Tensor) -> MetricValue:
    """Standard error of the mean of terms float64 (N,), whose groups (N,) are independent; of rows, the usual one.

    Source: Liang and Zeger, 1986, with the correction G / (G - 1).
    """
    values, index = torch.unique(groups, return_inverse=True)
    num_groups = values.numel()
    if num_groups < 2:
        return MetricValue.undefined("all rows are of one group: two are needed" if num_groups else NO_ROWS)
    deviations = torch.zeros(num_groups, dtype=torch.float64, device=terms.device)
    deviations.index_add_(0, index, terms - terms.mean())
    return MetricValue.of(math.sqrt(num_groups / (num_groups - 1) * float((deviations**2).sum())) / terms.numel())
