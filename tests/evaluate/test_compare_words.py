"""The words of a comparison: each claims what its interval shows, and names what it does not know."""

from dataclasses import replace

import pytest

from recsys.evaluate.compare import verdict_of
from recsys.evaluate.compare_config import Metric
from recsys.evaluate.compare_words import cost_sentence, lead, title
from recsys.evaluate.compared import Comparison, Cost
from recsys.metrics import MetricValue
from tests.evaluate.compare_world import BY_USER, compared, said, world


def verdict(difference: float, half: float, *, margin: float, metric: Metric = Metric.AUC) -> Comparison:
    """A comparison whose primary difference and interval are these, as the real code judges them."""
    frames = world(9, users=60, rows=5)
    found = compared(frames, replace(BY_USER, metric=metric))
    p_value = MetricValue.of(0.01 if abs(difference) > half else 0.5)
    made = replace(
        found.primary(found.candidates[0]),
        difference=MetricValue.of(difference),
        low=MetricValue.of(difference - half),
        high=MetricValue.of(difference + half),
        p_value=p_value,
        adjusted_p=p_value,
    )
    margins = {metric.value: margin}
    made = replace(made, verdict=verdict_of(made, replace(BY_USER, metric=metric, margin=margins)))
    others = [d for d in found.overall if d.metric is not metric]
    return replace(found, overall=(made, *others), margin=margins)


@pytest.mark.parametrize(
    ("difference", "half", "margin", "metric", "words"),
    [
        (0.005, 0.002, 0.001, Metric.AUC, ["is better than", "The whole interval lies beyond the margin of 0.001"]),
        (0.005, 0.002, 0.01, Metric.AUC, ["is better than", "within the margin of 0.01: real, but less than"]),
        (0.005, 0.002, 0.004, Metric.AUC, ["is better than", "Whether it exceeds the margin of 0.004"]),
        (0.005, 0.002, 0.0, Metric.AUC, ["is better than"]),
        (-0.005, 0.002, 0.001, Metric.AUC, ["is worse than", "beyond the margin"]),
        (
            -0.005,
            0.002,
            0.001,
            Metric.LOG_LOSS,
            ["log loss of run1 is better than", "−0.00500 (95% interval −0.00700", "beyond the margin"],
        ),
        (0.001, 0.002, 0.0, Metric.AUC, ["No difference in AUC", "at this sample size", "With 80% power"]),
        (0.001, 0.002, 0.002, Metric.AUC, ["No difference in AUC"]),
        (0.001, 0.002, 0.004, Metric.AUC, ["differ by less than the margin of 0.004, if at all"]),
    ],
)
def test_words_claim_what_the_interval_shows(
    difference: float, half: float, margin: float, metric: Metric, words: list[str]
) -> None:
    text = said(verdict(difference, half, margin=margin, metric=metric))
    assert all(word in text for word in words), text
    assert ("margin" in text) == any("margin" in word for word in words), text
    assert "two trained models, not two methods" in text


def test_seeds_are_told_beside_the_sample() -> None:
    frames = world(10, users=200, rows=5, num_runs=5, shift=(0, 0, 0, 0, 0))
    named = dict(zip(["a_seed1", "a_seed2", "b_seed1", "b_seed2", "b_seed3"], frames.values(), strict=True))
    comparison = compared(named, replace(BY_USER, group_seeds=True))
    assert title(comparison) == "b against a"
    found = comparison.overall[0]
    assert [len(found.baseline_values.by_run), len(found.candidate_values.by_run)] == [2, 3]
    squares = found.row_error.value_or(0) ** 2 + found.seed_error.value_or(0) ** 2
    assert found.standard_error.value == pytest.approx(squares**0.5)
    text = said(comparison)
    assert "3 run(s) of b, 2 of a" in text and "standard deviation over seeds of" in text
    assert "not two methods" not in text
    alone = compared(
        {name: named[name] for name in ("a_seed1", "b_seed1", "b_seed2")}, replace(BY_USER, group_seeds=True)
    )
    assert "A method with one run is taken to vary as the other does." in said(alone)


def test_several_candidates_and_slices_in_words() -> None:
    frames = world(12, users=300, rows=5, num_runs=3, noise=(1.5, 0.3, 1.5))
    comparison = compared(frames, replace(BY_USER, slices=["device"]))
    assert title(comparison) == "2 candidates against run0"
    assert lead(comparison) == (
        "On the same 1,500 rows of 300 values of user, by AUC against run0: run1: better; run2: no difference shown."
    )
    assert "after Holm" in said(comparison) and "Slices, 9 tests: better in device=" in said(comparison)
    assert "none is shown to differ, which does not say that none does" in said(comparison, 1)


def test_costs_are_told_where_both_are_known() -> None:
    comparison = compared(world(13, users=30, rows=5))
    before = Cost(method="run0", embedding_bytes=1000, file_bytes=3000, train_rows_per_second=500.0, latency_ms=2.0)
    after = Cost(method="run1", embedding_bytes=250, train_rows_per_second=1000.0, latency_ms=2.0)
    told = cost_sentence(replace(comparison, costs=(before, after)), comparison.candidates[0])
    assert told == (
        "It takes 250 bytes of all embeddings as served instead of 1,000 (4.00× smaller); 1,000 training rows/s "
        "instead of 500 (2.00× faster); 2.00 ms a request instead of 2.00 (the same)."
    )
    assert cost_sentence(comparison, comparison.candidates[0]) == ""
