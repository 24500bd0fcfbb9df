"""Counterfactual values of another policy, where the log holds the probabilities of its actions."""

import math

import polars as pl

from recsys.core.errors import ConfigError
from recsys.evaluate.config import EvaluateConfig
from recsys.evaluate.held import HeldRows
from recsys.evaluate.scored import numeric_column
from recsys.evaluate.sliced import too_many_rows
from recsys.evaluate.source import Predictions
from recsys.metrics import LoggedRows, MetricValue, PolicyValue, doubly_robust, inverse_propensity, self_normalized

LIVE, IPS, SNIPS, DR = "logged policy", "IPS", "SNIPS", "doubly robust"


def check_policy_columns(source: Predictions, config: EvaluateConfig) -> None:
    """Refuse columns that are absent.

    Raises:
        ConfigError: naming the option and the column.
    """
    for key in ("propensity", "target_propensity", "reward", "expected_reward"):
        column = getattr(config, key)
        if column and column not in source.schema:
            raise ConfigError(f"evaluate.{key}: no column {column!r} in the predictions, only {source.columns}.")


def policy_values(source: Predictions, held: HeldRows | None, config: EvaluateConfig) -> dict[str, PolicyValue]:
    """By estimator, mean reward per row, with errors by `group_key`; empty where no propensity is named.

    Doubly robust needs one reward model's two expectations: of the logged action, and under the policy asked about. Two
    models' would not cancel.

    Raises:
        DataError: a column is not numeric or holds impossible values.
    """
    if not config.propensity:
        return {}
    names = (LIVE, IPS, SNIPS) + ((DR,) if config.expected_reward else ())
    if held is None or held.weights is not None:
        weighted = "rows have weights of their own, which importance weights do not go with"
        reason = too_many_rows(source.num_rows, config) if held is None else weighted
        return dict.fromkeys(names, _undefined(reason, source.num_rows))
    reward = config.reward or "label"
    columns = dict.fromkeys([reward, config.propensity, config.target_propensity])
    expected = [config.predicted_reward, config.expected_reward] if config.expected_reward else []
    frame = pl.concat(list(source.chunks(list(columns | dict.fromkeys(expected)))))
    rewards, propensities, targets = (
        numeric_column(frame, name) for name in (reward, config.propensity, config.target_propensity)
    )
    rows = LoggedRows(rewards=rewards, propensities=propensities, targets=targets, groups=held.clusters.index)
    # Aimed at itself, a policy has weights of one: the plain mean, with the same kind of error.
    live = LoggedRows(rewards=rewards, propensities=propensities, targets=propensities, groups=held.clusters.index)
    limit = config.max_weight or math.inf
    found = {LIVE: inverse_propensity(live), IPS: inverse_propensity(rows, max_weight=limit)}
    found[SNIPS] = self_normalized(rows, max_weight=limit)
    if config.expected_reward:
        predicted, expectation = (numeric_column(frame, name) for name in expected)
        found[DR] = doubly_robust(rows, predicted=predicted, expected=expectation, max_weight=limit)
    return found


def _undefined(reason: str, num_rows: int) -> PolicyValue:
    nothing = MetricValue.undefined(reason)
    return PolicyValue(
        value=nothing,
        standard_error=nothing,
        effective_rows=nothing,
        mean_weight=nothing,
        max_weight=nothing,
        num_rows=num_rows,
        num_clipped=0,
    )
