"""IPS, SNIPS and DR: by hand, against loops, and on logs of a policy whose successor's value is known."""

import math
import statistics

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError, DataError
from recsys.metrics import LoggedRows, PolicyValue, doubly_robust, inverse_propensity, self_normalized


def logged(
    rewards: list[float], propensities: list[float], targets: list[float], groups: list[int] | None = None
) -> LoggedRows:
    index = list(range(len(rewards))) if groups is None else groups
    return LoggedRows(
        rewards=torch.tensor(rewards),
        propensities=torch.tensor(propensities),
        targets=torch.tensor(targets),
        groups=torch.tensor(index, dtype=torch.int64),
    )


def test_by_hand() -> None:
    rows = logged([1.0, 0.0, 1.0, 0.0], [0.5, 0.5, 0.25, 1.0], [0.25, 0.5, 1.0, 0.0])
    # weights .5, 1, 4, 0
    assert inverse_propensity(rows).value.value == 4.5 / 4
    assert self_normalized(rows).value.value == pytest.approx(4.5 / 5.5)
    clipped = inverse_propensity(rows, max_weight=2)
    assert clipped.value.value == 2.5 / 4 and clipped.num_clipped == 1
    assert clipped.effective_rows.value == pytest.approx(3.5**2 / 5.25)
    assert (clipped.mean_weight.value, clipped.max_weight.value) == (5.5 / 4, 4.0)
    robust = doubly_robust(rows, predicted=torch.full((4,), 0.5), expected=torch.full((4,), 0.25))
    assert robust.value.value == pytest.approx(0.25 + (0.5 * 0.5 - 0.5 + 4 * 0.5) / 4)
    same = logged([1.0, 0.0, 1.0], [0.5, 0.2, 0.1], [0.5, 0.2, 0.1])
    for got in (inverse_propensity(same), self_normalized(same)):
        assert got.value.value == pytest.approx(2 / 3) and got.effective_rows.value == 3.0


def simulated(num_rows: int, generator: torch.Generator) -> tuple[LoggedRows, Tensor, Tensor, float]:
    """Logs of three actions in two contexts; predictions of a model that is off; the target's true value."""
    truth = torch.tensor([[0.1, 0.3, 0.6], [0.5, 0.2, 0.1]], dtype=torch.float64)
    live = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]], dtype=torch.float64)
    target = torch.tensor([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]], dtype=torch.float64)
    context = torch.randint(0, 2, (num_rows,), generator=generator)
    action = torch.multinomial(live[context], 1, generator=generator).flatten()
    model = truth * 0.8 + 0.05
    rows = LoggedRows(
        rewards=(torch.rand(num_rows, generator=generator) < truth[context, action]).float(),
        propensities=live[context, action],
        targets=target[context, action],
        groups=torch.arange(num_rows),
    )
    return rows, model[context, action], (target * model).sum(1)[context], float((target * truth).sum(1).mean())


def test_estimates_are_unbiased_and_their_errors_are_their_spread() -> None:
    generator = torch.Generator().manual_seed(1)
    found: dict[str, list[PolicyValue]] = {"ips": [], "snips": [], "dr": []}
    for _ in range(150):
        rows, predicted, expected, value = simulated(600, generator)
        found["ips"].append(inverse_propensity(rows))
        found["snips"].append(self_normalized(rows))
        found["dr"].append(doubly_robust(rows, predicted=predicted, expected=expected))
    spreads = {}
    for name, results in found.items():
        values = [result.value.value_or(math.nan) for result in results]
        spreads[name] = statistics.stdev(values)
        assert statistics.mean(values) == pytest.approx(value, abs=3.5 * spreads[name] / 150**0.5), name
        error = statistics.mean(result.standard_error.value_or(math.nan) for result in results)
        assert error == pytest.approx(spreads[name], rel=0.2), name  # 150 samples know their spread to 6%
    assert spreads["dr"] < spreads["ips"]


def test_errors_by_user_see_repeated_rows() -> None:
    rows, predicted, expected, _ = simulated(200, torch.Generator().manual_seed(2))
    repeated = LoggedRows(
        **{name: getattr(rows, name).repeat(9) for name in ("rewards", "propensities", "targets", "groups")}
    )
    for one, nine in (
        (inverse_propensity(rows), inverse_propensity(repeated)),
        (self_normalized(rows), self_normalized(repeated)),
        (
            doubly_robust(rows, predicted=predicted, expected=expected),
            doubly_robust(repeated, predicted=predicted.repeat(9), expected=expected.repeat(9)),
        ),
    ):
        assert nine.value.value == pytest.approx(one.value.value)
        assert nine.standard_error.value == pytest.approx(one.standard_error.value, rel=1e-12)


def test_the_error_of_rows_is_the_usual_one() -> None:
    rows, predicted, expected, _ = simulated(300, torch.Generator().manual_seed(3))
    weights = (rows.targets / rows.propensities).clamp(max=3).tolist()
    terms = [w * r for w, r in zip(weights, rows.rewards.tolist(), strict=True)]
    got = inverse_propensity(rows, max_weight=3)
    assert got.standard_error.value == pytest.approx(statistics.stdev(terms) / 300**0.5)
    value = math.fsum(terms) / math.fsum(weights)
    linear = [w * (r - value) for w, r in zip(weights, rows.rewards.tolist(), strict=True)]
    expected_error = math.sqrt(300 / 299 * math.fsum(t * t for t in linear)) / math.fsum(weights)
    assert self_normalized(rows, max_weight=3).standard_error.value == pytest.approx(expected_error)
    robust = [
        e + w * (r - p)
        for e, w, r, p in zip(expected.tolist(), weights, rows.rewards.tolist(), predicted.tolist(), strict=True)
    ]
    got = doubly_robust(rows, predicted=predicted, expected=expected, max_weight=3)
    assert got.value.value == pytest.approx(statistics.mean(robust))
    assert got.standard_error.value == pytest.approx(statistics.stdev(robust) / 300**0.5)


def test_without_a_value_there_is_a_reason() -> None:
    none = logged([], [], [])
    zeros = torch.empty(0)
    for got in (
        inverse_propensity(none),
        self_normalized(none),
        doubly_robust(none, predicted=zeros, expected=zeros),
    ):
        assert {v.undefined_reason for v in (got.value, got.standard_error, got.effective_rows, got.mean_weight)} == {
            "there are no rows"
        }
    elsewhere = logged([1.0, 0.0], [0.5, 0.5], [0.0, 0.0])
    assert self_normalized(elsewhere).value.undefined_reason == "the target policy takes no action that was logged"
    assert inverse_propensity(elsewhere).value.value == 0.0 and inverse_propensity(elsewhere).effective_rows.value == 0
    alone = logged([1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [7, 7])
    assert inverse_propensity(alone).standard_error.undefined_reason == "all rows are of one group: two are needed"
    tiny = LoggedRows(
        rewards=torch.ones(2),
        propensities=torch.tensor([5e-324, 0.5], dtype=torch.float64),
        targets=torch.ones(2),
        groups=torch.arange(2),
    )
    assert "not finite" in inverse_propensity(tiny).value.undefined_reason
    assert not self_normalized(tiny).value.defined and not inverse_propensity(tiny).effective_rows.defined
    assert inverse_propensity(tiny, max_weight=10).value.value == 6.0


@pytest.mark.parametrize(
    ("rewards", "propensities", "targets", "words"),
    [
        ([1.0, 0.0], [0.0, 0.5], [0.5, 0.5], r"propensities: 1 of 2 .*outside \(0, 1\].*row 0"),
        ([1.0, 0.0], [0.5, 1.5], [0.5, 0.5], "propensities: 1 of 2 .*row 1"),
        ([1.0, 0.0], [0.5, -0.5], [0.5, 0.5], "propensities"),
        ([1.0, 0.0], [math.nan, 0.5], [0.5, 0.5], "propensities"),
        ([1.0, 0.0], [0.5, 0.5], [0.5, 1.1], "targets"),
        ([math.inf, 0.0], [0.5, 0.5], [0.5, 0.5], "rewards"),
        ([1.0, 0.0], [0.5, 0.5], [0.5], "one value of each per row"),
    ],
)
def test_impossible_rows_are_refused(
    rewards: list[float], propensities: list[float], targets: list[float], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        logged(rewards, propensities, targets)


def test_impossible_settings_are_refused() -> None:
    rows = logged([1.0], [0.5], [0.5])
    for max_weight in (0.0, -1.0, math.nan):
        with pytest.raises(ConfigError, match="max_weight="):
            inverse_propensity(rows, max_weight=max_weight)
    with pytest.raises(DataError, match="expected rewards have shape"):
        doubly_robust(rows, predicted=torch.zeros(1), expected=torch.zeros(2))
    with pytest.raises(DataError, match="predicted rewards: 1 of 1"):
        doubly_robust(rows, predicted=torch.tensor([math.nan]), expected=torch.zeros(1))
