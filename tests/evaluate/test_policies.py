"""Counterfactual values of logged rows whose truth is known, and what is refused."""

import math

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.evaluate import EvaluateConfig, evaluate
from recsys.evaluate.policies import DR, IPS, LIVE, SNIPS

LOGGED = {"propensity": "logged", "target_propensity": "wanted", "num_replicates": 0}


def log(num: int = 4000) -> pl.DataFrame:
    """Two actions, of which .2 and .5 click: the live policy takes the first with .8, the target with .1."""
    generator = np.random.default_rng(5)
    first = generator.random(num) < 0.8
    logit = np.where(first, math.log(0.2 / 0.8), 0.0).astype(np.float32)
    return pl.DataFrame(
        {
            "label": (generator.random(num) < np.where(first, 0.2, 0.5)).astype(np.int8),
            "logit": logit,
            "probability": 1 / (1 + np.exp(-logit)),
            "logged": np.where(first, 0.8, 0.2),
            "wanted": np.where(first, 0.1, 0.9),
            "expected": np.full(num, 0.1 * 0.2 + 0.9 * 0.5),
            "predicted": np.where(first, 0.2, 0.5),
            "other": np.full(num, 0.9),
            "money": generator.normal(2, 0.1, num),
            "user": generator.integers(0, 200, num),
        }
    )


@pytest.mark.parametrize("group_key", ["", "user"])
def test_estimators_find_what_the_target_would_have_earned(group_key: str) -> None:
    config = EvaluateConfig(**LOGGED, expected_reward="expected", predicted_reward="predicted", group_key=group_key)  # type: ignore[arg-type]
    got = evaluate(log(), config).policies
    assert list(got) == [LIVE, IPS, SNIPS, DR]
    assert got[LIVE].value.value == pytest.approx(log()["label"].mean(), abs=1e-12)
    for name in (IPS, SNIPS, DR):
        value, error = got[name].value.value_or(0), got[name].standard_error.value_or(0)
        assert abs(value - 0.47) < 3 * error < 0.15, name
        assert got[name].mean_weight.value == pytest.approx(1, abs=0.1)
    assert got[DR].standard_error.value_or(9) < got[IPS].standard_error.value_or(0)
    assert got[IPS].effective_rows.value_or(0) < 1500


@pytest.mark.parametrize("guess", ["predicted", "other"])
def test_doubly_robust_is_right_whatever_its_reward_model_says(guess: str) -> None:
    """Aimed at the live policy with a reward model that is wrong everywhere, it is still the mean."""
    names = {"propensity": "logged", "target_propensity": "logged", "expected_reward": guess, "predicted_reward": guess}
    got = evaluate(log(), EvaluateConfig(**names)).policies  # type: ignore[arg-type]
    assert got[DR].value.value == pytest.approx(log()["label"].mean(), abs=1e-12)


@pytest.mark.parametrize("one", ["expected_reward", "predicted_reward"])
def test_two_models_do_not_make_a_doubly_robust_value(one: str) -> None:
    with pytest.raises(ConfigError, match=r"of one reward model\. Name both or neither"):
        EvaluateConfig(**LOGGED, **{one: "expected"})  # type: ignore[arg-type]


def test_rewards_and_clipping_are_taken() -> None:
    got = evaluate(log(), EvaluateConfig(**LOGGED, reward="money", max_weight=2.0)).policies  # type: ignore[arg-type]
    assert got[LIVE].value.value == pytest.approx(2, abs=0.01) and DR not in got
    assert got[SNIPS].value.value == pytest.approx(2, abs=0.01)
    assert got[IPS].num_clipped == int((log()["logged"] == 0.2).sum()) and got[IPS].value.value_or(9) < 1.5


def test_without_a_propensity_there_is_no_section() -> None:
    assert evaluate(log(), EvaluateConfig(num_replicates=0)).policies == {}


def test_too_many_rows_are_told() -> None:
    got = evaluate(log(), EvaluateConfig(**LOGGED, max_rows_in_memory=100)).policies  # type: ignore[arg-type]
    assert all("max_rows_in_memory=100" in policy.value.undefined_reason for policy in got.values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"propensity": "p"}, "needs both columns"),
        ({"target_propensity": "p"}, "needs both columns"),
        ({"reward": "money"}, "only read beside evaluate.propensity"),
        ({**LOGGED, "max_weight": -1.0}, "max_weight=-1.0"),
        ({**LOGGED, "reward": "absent"}, "evaluate.reward: no column 'absent'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        evaluate(log(10), EvaluateConfig(**options))  # type: ignore[arg-type]


def test_impossible_propensities_are_refused() -> None:
    with pytest.raises(DataError, match=r"propensities: 10 of 10 .*outside \(0, 1\]"):
        evaluate(log(10).with_columns(logged=pl.lit(0.0)), EvaluateConfig(**LOGGED))  # type: ignore[arg-type]
