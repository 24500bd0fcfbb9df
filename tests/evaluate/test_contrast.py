"""The test of a slice against the rest: right errors, honest p-values where users repeat, and what it refuses."""

import math

import polars as pl
import pytest
import torch

from recsys.evaluate import Contrast, EvaluateConfig, Predictions, evaluate
from recsys.evaluate.contrast import _without, adjusted, contrast_by_group, contrast_of
from recsys.evaluate.held import HeldRows
from recsys.metrics import Clusters, MetricValue, ScoreCounts, auc, auc_standard_error


def rows(num: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(num, generator=generator) < 0.3).long()
    return labels, (torch.randn(num, generator=generator) + labels).mul(8).round() / 8  # with ties


def held(labels: torch.Tensor, logits: torch.Tensor, groups: torch.Tensor) -> HeldRows:
    return HeldRows(
        labels=labels,
        logits=logits,
        probabilities=torch.sigmoid(logits),
        clusters=Clusters.of(groups),
        keyed=torch.ones_like(labels, dtype=torch.bool),
    )


def test_counts_of_the_rest_are_exact() -> None:
    labels, logits = rows(500, 1)
    inside = torch.arange(500) % 3 == 0
    rest = _without(ScoreCounts.from_rows(labels, logits), ScoreCounts.from_rows(labels[inside], logits[inside]))
    wanted = ScoreCounts.from_rows(labels[~inside], logits[~inside])
    for name in ("scores", "positives", "negatives"):
        assert torch.equal(getattr(rest, name), getattr(wanted, name))


def test_independent_rows_add_the_variances_of_both_sides() -> None:
    labels, logits = rows(900, 2)
    inside = torch.arange(900) % 3 == 0
    got = contrast_of(ScoreCounts.from_rows(labels[inside], logits[inside]), ScoreCounts.from_rows(labels, logits))
    sides = [(labels[side], logits[side]) for side in (inside, ~inside)]
    difference = auc(*sides[0]).value_or(0) - auc(*sides[1]).value_or(0)
    error = math.hypot(*(auc_standard_error(*side).value_or(0) for side in sides))
    assert got.difference.value == pytest.approx(difference, abs=1e-15)
    assert got.standard_error.value == pytest.approx(error, rel=1e-12)
    # Rows that are each a group of their own are independent: the same but for corrections of order 1 / rows.
    alone = contrast_by_group(held(labels, logits, torch.arange(900)), inside)
    assert alone.difference == got.difference
    assert alone.standard_error.value == pytest.approx(error, rel=0.01)


def test_a_repeated_row_is_one_observation() -> None:
    labels, logits = rows(600, 3)
    inside, groups = torch.arange(600) % 2 == 0, torch.arange(600)
    once = contrast_by_group(held(labels, logits, groups), inside)
    four = [values.repeat(4) for values in (labels, logits, groups, inside)]
    again = contrast_by_group(held(*four[:3]), four[3])
    assert again.p_value.value == pytest.approx(once.p_value.value, rel=1e-9)


def test_p_values_are_honest_where_users_are_on_both_sides() -> None:
    """With no difference, 5% of p-values lie below .05: users differ in rate and in how well they are scored."""
    below = 0
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        user = torch.arange(120).repeat_interleave(6)
        rate, skill = torch.rand(120, generator=generator), torch.rand(120, generator=generator) * 2
        labels = (torch.rand(720, generator=generator) < rate[user]).long()
        logits = torch.randn(720, generator=generator) + skill[user] * labels + rate[user]
        inside = torch.rand(720, generator=generator) < 0.4
        below += contrast_by_group(held(labels, logits, user), inside).p_value.value_or(1) < 0.05
    assert 6 <= below <= 27  # 15 expected; outside with a chance of .4% if honest


def test_a_slice_that_is_ranked_by_chance_is_found(predictions: pl.DataFrame) -> None:
    logit = pl.when(pl.col("device") == "phone").then(pl.col("logit").shuffle(seed=1)).otherwise("logit")
    worse = predictions.with_columns(logit=logit).with_columns(
        probability=(1 / (1 + (-pl.col("logit").cast(pl.Float64)).exp())).cast(pl.Float32)
    )
    for key in ("", "user"):
        config = EvaluateConfig(slices=["device"], group_key=key, num_replicates=0)
        found = {row.value: row.versus_rest for row in evaluate(worse, config).slices}
        assert found["phone"].difference.value_or(0) < -0.2
        assert found["phone"].adjusted_p_value.value_or(1) < 1e-6
        assert found["phone"].adjusted_p_value.value_or(0) >= found["phone"].p_value.value_or(1)
        level = {row.value: row.versus_rest for row in evaluate(predictions, config).slices}
        assert all(contrast.adjusted_p_value.value_or(0) > 0.01 for contrast in level.values())


@pytest.mark.parametrize(
    ("labels", "inside", "words"),
    [
        ([1] * 19 + [0] * 81, [True] * 50 + [False] * 50, "only 0 rows of one class"),
        ([0, 1] * 50, [True] * 20 + [False] * 80, "only 10 rows of one class inside or outside, fewer than 20"),
        ([0, 1] * 50, [True] * 50 + [False] * 50, "only 10 groups on one side"),
    ],
)
def test_too_little_for_a_test_is_said(labels: list[int], inside: list[bool], words: str) -> None:
    groups = torch.arange(100) // 5
    got = contrast_by_group(held(torch.tensor(labels), torch.arange(100.0) % 13, groups), torch.tensor(inside))
    assert words in got.p_value.undefined_reason and not got.difference.defined


def test_only_tests_with_a_p_value_are_adjusted_for() -> None:
    nothing = Contrast.undefined("no")
    some = Contrast(
        difference=MetricValue.of(0.1),
        standard_error=MetricValue.of(0.1),
        p_value=MetricValue.of(0.02),
        adjusted_p_value=MetricValue.undefined("not adjusted yet"),
    )
    got = adjusted([nothing, some, some, nothing])
    assert [each.adjusted_p_value.value for each in got] == [None, 0.02, 0.02, None]
    assert got[0].adjusted_p_value.undefined_reason == "no"


def test_rows_without_a_key_are_a_group_each() -> None:
    frame = pl.DataFrame(
        {"label": [0, 1, 0, 1], "logit": [0.0, 1.0, 2.0, 3.0], "probability": [0.5] * 4, "user": ["b", None, "a", None]}
    )
    rows_held = HeldRows.of(Predictions.of(frame), "user")
    assert rows_held.clusters.index.tolist() == [1, 2, 0, 3] and rows_held.clusters.num_clusters == 4
    assert rows_held.keyed.tolist() == [True, False, True, False]
