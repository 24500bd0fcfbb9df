"""What a comparison says: of equal models about 5 times in 100 that they differ, and never more than it tested."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.evaluate.compare_config import CLICK_METRICS, Metric
from recsys.evaluate.compare_words import headline, title
from recsys.evaluate.compared import Verdict
from recsys.metrics import GroupedCounts, GroupWeight, auc, gauc_of, log_loss
from tests.evaluate.compare_world import BY_USER, compared, said, world


def test_equal_models_are_told_apart_about_5_times_in_100() -> None:
    """200 samples of 240 rows of 60 users: at 5%, 10 findings are expected, and 3 to 19 within 3 deviations."""
    found = dict.fromkeys(CLICK_METRICS, 0)
    for seed in range(200):
        comparison = compared(world(seed, users=60, rows=4), replace(BY_USER, seed=seed))
        for difference in comparison.overall:
            assert difference.p_value.value is not None
            found[difference.metric] += difference.p_value.value <= 0.05
    folded = found.pop(Metric.CALIBRATION)
    assert all(3 <= number <= 19 for number in found.values()), found
    assert folded <= 10, "cautious, as the page says"


def test_holm_and_benjamini_hochberg_keep_a_family_at_its_level() -> None:
    """Four equal candidates and three slices: a false verdict in at most 5% of samples (0 to 5 of 25)."""
    config = replace(BY_USER, slices=["device"], num_replicates=40)
    verdicts = slices = 0
    for seed in range(25):
        comparison = compared(world(500 + seed, users=90, rows=5, num_runs=5), config)
        found = [comparison.primary(candidate).verdict for candidate in comparison.candidates]
        verdicts += any(verdict in (Verdict.BETTER, Verdict.WORSE) for verdict in found)
        slices += any(d.verdict in (Verdict.BETTER, Verdict.WORSE) for d in comparison.slices)
        assert all(
            d.adjusted_p.value_or(1) >= d.p_value.value_or(1) - 1e-12 for d in comparison.overall + comparison.slices
        )
    assert verdicts <= 5 and slices <= 5, (verdicts, slices)


def test_what_it_calls_detectable_is_found_4_times_in_5() -> None:
    """A candidate better by what one sample calls detectable is found in most of 40 others."""
    frames = world(7, users=100, rows=4, noise=(1.6, 0.5))
    detectable = compared(frames).overall[0].detectable.value_or(math.nan)
    gaps, found = [], 0
    for seed in range(40):
        first = compared(world(700 + seed, users=100, rows=4, noise=(1.6, 0.5))).overall[0]
        gaps.append(first.difference.value_or(math.nan))
        found += first.verdict is Verdict.BETTER
    assert float(np.mean(gaps)) == pytest.approx(detectable, rel=0.35), "the world of this test is near its own limit"
    assert 24 <= found <= 39


def test_a_better_model_is_called_better_in_every_direction() -> None:
    frames = world(1, users=400, rows=5, noise=(1.5, 0.3))
    comparison = compared(frames)
    by_metric = {d.metric: d for d in comparison.overall}
    for metric in (Metric.AUC, Metric.GAUC, Metric.AVERAGE_PRECISION, Metric.LOG_LOSS, Metric.NORMALIZED_ENTROPY):
        found = by_metric[metric]
        assert found.verdict is Verdict.BETTER and found.gain > 0, metric
        assert (found.difference.value_or(0) > 0) == metric.higher_is_better
    back = compared({"run1": frames["run1"], "run0": frames["run0"]})
    for found in back.overall:
        forth = by_metric[found.metric]
        assert found.difference.value == pytest.approx(-forth.difference.value_or(math.nan), abs=1e-12)
        assert found.p_value.value == pytest.approx(forth.p_value.value_or(math.nan), rel=1e-6, abs=1e-12)
    assert back.primary(back.candidates[0]).verdict is Verdict.WORSE and "is worse than that of run1" in said(back)


def test_values_are_those_of_each_run_in_whatever_order_its_rows_come() -> None:
    frames = world(2, users=80, rows=5)
    found = compared({"run0": frames["run0"], "run1": frames["run1"].sample(fraction=1, shuffle=True, seed=3)})
    straight = compared(frames)
    assert found == straight
    for name, of in (("run0", "baseline_values"), ("run1", "candidate_values")):
        labels, logits = (frames[name][column].to_torch() for column in ("label", "logit"))
        assert getattr(found.overall[0], of).mean == auc(labels, logits)
        by_metric = {d.metric: d for d in found.overall}
        assert getattr(by_metric[Metric.LOG_LOSS], of).mean.value == pytest.approx(log_loss(labels, logits).value)


def test_identical_runs_are_the_same_and_nothing_else() -> None:
    frames = world(3, users=80, rows=5, num_runs=1)
    comparison = compared({"a": frames["run0"], "b": frames["run0"]}, replace(BY_USER, slices=["device"]))
    assert {d.verdict for d in comparison.overall + comparison.slices} == {Verdict.IDENTICAL}
    assert all(d.difference.value == 0 and not d.p_value.defined for d in comparison.overall)
    assert "a and" not in title(comparison) and "have the same AUC" in said(comparison)


def test_a_shift_of_all_logits_ranks_alike_and_calibrates_worse() -> None:
    frames = world(4, users=300, rows=5, num_runs=1)
    shifted = frames["run0"].with_columns(logit=pl.col("logit") + 1.0)
    verdicts = {d.metric: d.verdict for d in compared({"a": frames["run0"], "b": shifted}).overall}
    assert {verdicts[m] for m in CLICK_METRICS if m.higher_is_better} == {Verdict.IDENTICAL}
    assert {verdicts[m] for m in CLICK_METRICS if not m.higher_is_better} == {Verdict.WORSE}


def test_a_difference_that_all_rows_make_alike_gets_a_verdict() -> None:
    """No row varies, so there is no error to divide by: a sign test says how little chance explains it."""
    frame = world(6, users=60, rows=5, num_runs=1)["run0"]
    perfect = frame.with_columns(logit=pl.col("label").cast(pl.Float32) * 4 - 2)
    constant = frame.with_columns(logit=pl.lit(0.5))
    for config in (BY_USER, replace(BY_USER, group_key="")):
        found = compared({"a": constant, "b": perfect}, config).overall[0]
        assert (found.verdict, found.difference.value) == (Verdict.BETTER, 0.5)
        assert (found.low.value, found.high.value, found.standard_error.defined) == (0.5, 0.5, False)
        worse = compared({"a": perfect, "b": constant}, config)
        assert worse.overall[0].verdict is Verdict.WORSE
        assert "the same in whatever sample of these rows; sign test, p < 0.0001)" in said(worse)
    few = cut({"a": constant, "b": perfect}, pl.col("__row__") < 60)
    p_value = compared(few, replace(BY_USER, group_key="")).overall[0].p_value.value
    assert p_value == 2.0 ** (1 - int(few["a"]["label"].sum()))
    seeds = {f"{name}_seed{n}": frame for name, frame in (("a", constant), ("b", perfect)) for n in (1, 2)}
    assert compared(seeds, replace(BY_USER, group_seeds=True)).overall[0].verdict is Verdict.BETTER


def cut(frames: Mapping[str, pl.DataFrame], rows: pl.Expr) -> dict[str, pl.DataFrame]:
    return {name: frame.filter(rows) for name, frame in frames.items()}


FEW = r"because \d+ groups hold positives and \d+ negatives; 10 of each are needed"
UNTESTED: dict[str, tuple[pl.Expr, str]] = {
    "one class": (pl.col("label") == 0, r"because all \d+ labels are 0"),
    "no rows": (pl.col("label") > 1, "because there are no rows"),
    "one row": (pl.col("__row__") == 0, r"because all 1 labels are"),
    "a single group": (pl.col("user") == 0, "because (all|1 groups hold)"),
    "tiny": (pl.col("user") < 8, FEW),
}


@pytest.mark.parametrize("case", UNTESTED)
def test_what_cannot_be_tested_gets_no_verdict(case: str) -> None:
    rows, reason = UNTESTED[case]
    comparison = compared(cut(world(5, users=60, rows=9), rows), replace(BY_USER, slices=["device"]))
    assert {d.verdict for d in comparison.overall} == {Verdict.UNTESTED}
    assert all(not d.p_value.defined and not d.low.defined for d in comparison.overall)
    words = headline(comparison, comparison.candidates[0])
    assert words.startswith("No verdict on run1: AUC was not tested, ")
    assert re.search(reason, words), words


def other_rows(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(__row__=pl.col("__row__") + 1)


def other_labels(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(label=pl.when(pl.col("__row__") == 17).then(1 - pl.col("label")).otherwise("label"))


REFUSED: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "fewer rows": (lambda f: f.head(90), r"10 rows only in run0, 0 rows only in run1 \(such as row 90\) of 100 and 90"),
    "other rows": (other_rows, r"1 rows only in run0, 1 rows only in run1 \(such as row 0\)"),
    "other labels": (other_labels, "other labels in 1 of 100 rows, the first at row 17"),
    "a row twice": (lambda f: pl.concat([f, f.head(1)]), "run1: 2 predictions share a row with another.*row 0"),
    "no row numbers": (lambda f: f.drop("__row__"), r"run1: its predictions lack \['__row__'\]"),
    "a null": (lambda f: f.with_columns(logit=pl.lit(None, pl.Float32)), "run1: its logits .* hold nulls or NaN"),
    "a NaN": (lambda f: f.with_columns(logit=pl.lit(math.nan)), "run1: its logits .* hold nulls or NaN"),
    "text": (lambda f: f.with_columns(logit=pl.lit("0.5")), "run1: its logits .* hold nulls or NaN"),
    "a label of 2": (lambda f: f.with_columns(label=pl.col("label") * 2), "labels are neither 0 nor 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_rows_are_refused_with_what_differs(case: str) -> None:
    spoil, message = REFUSED[case]
    frames = world(6, users=20, rows=5)
    with pytest.raises(DataError, match=message):
        compared({"run0": frames["run0"], "run1": spoil(frames["run1"])})


def test_rows_without_a_user_are_groups_of_their_own() -> None:
    frames = world(6, users=40, rows=5)
    frames["run0"] = frames["run0"].with_columns(user=pl.when(pl.col("user") < 20).then("user"))
    assert compared(frames).num_clusters == 20 + 100


def test_dependent_rows_make_errors_larger() -> None:
    """Every row 4 times: whoever takes them for independent has half the error."""
    once = world(8, users=60, rows=5)
    tiled = {name: pl.concat([frame] * 4).with_columns(__row__=pl.arange(1200)) for name, frame in once.items()}
    true = compared(once).overall[0].standard_error.value_or(math.nan)
    by_user, by_row = (compared(tiled, replace(BY_USER, group_key=key)).overall[0] for key in ("user", ""))
    assert by_user.difference == by_row.difference
    assert by_user.standard_error.value == pytest.approx(true, rel=0.02)
    assert by_row.standard_error.value == pytest.approx(true / 2, rel=0.2)


def test_one_lucky_seed_is_no_better_method() -> None:
    """Seeds that scatter far more than rows do: one pair differs beyond doubt, the two methods do not."""
    noises = (1.9, 0.4, 0.3, 2.0)  # of a_seed1, a_seed2, b_seed1, b_seed2
    frames = world(11, users=400, rows=5, num_runs=4, noise=noises)
    named = dict(zip(["a_seed1", "a_seed2", "b_seed1", "b_seed2"], frames.values(), strict=True))
    pair = compared({name: named[name] for name in ("a_seed1", "b_seed1")})
    assert pair.overall[0].verdict is Verdict.BETTER and "not two methods" in said(pair)
    assert compared(named, replace(BY_USER, group_seeds=True)).overall[0].verdict is Verdict.UNDECIDED


def test_seeds_that_scatter_do_not_make_methods_differ() -> None:
    """40 pairs of equal methods, 2 and 3 seeds each of its own quality: who counts rows alone errs in 8 of 40."""
    config, found, by_rows = replace(BY_USER, group_seeds=True, num_replicates=20), 0, 0
    for seed in range(40):
        noise = tuple(np.abs(0.9 + np.random.default_rng(9_000 + seed).normal(0, 0.3, 5)))
        frames = world(seed, users=100, rows=4, num_runs=5, noise=noise)
        named = dict(zip(("a_seed1", "a_seed2", "b_seed1", "b_seed2", "b_seed3"), frames.values(), strict=True))
        first = compared(named, config).overall[0]
        found += first.p_value.value_or(1.0) <= 0.05
        by_rows += abs(first.difference.value_or(0.0)) > 1.96 * first.row_error.value_or(math.nan)
    assert found <= 5 and by_rows >= 6, (found, by_rows)


def test_slices_bear_the_names_of_reports() -> None:
    frames = world(14, users=60, rows=10)
    day = (pl.col("__row__") // 200) * 86_400
    classes = pl.Enum(["head", "tail"])
    rank = pl.when(pl.col("__row__") % 3 == 0).then(pl.lit("tail")).otherwise(pl.lit("head")).cast(classes)
    frames["run0"] = frames["run0"].with_columns(day.alias("time"), rank.alias("frequency of item"))
    found = compared(frames, replace(BY_USER, slices=["frequency of item", "day of time"])).slices
    assert [(d.column, d.value, d.num_rows) for d in found if d.metric is Metric.AUC] == [
        ("frequency of item", "head", 400),
        ("frequency of item", "tail", 200),
        ("day of time", "1970-01-01", 200),
        ("day of time", "1970-01-02", 200),
        ("day of time", "1970-01-03", 200),
    ]
    with pytest.raises(ConfigError, match=r"no column 'hour' beside .* evaluate.frequency_slices, and evaluate again"):
        compared(frames, replace(BY_USER, slices=["day of hour"]))


@pytest.mark.parametrize("weighting", GroupWeight)
def test_groups_count_as_asked(weighting: GroupWeight) -> None:
    frames = world(15, users=60, rows=10)
    labels, logits, users = (frames["run1"][column].to_torch() for column in ("label", "logit", "user"))
    counted = gauc_of(GroupedCounts.from_rows(labels, logits, users), weighting=weighting).auc
    by_metric = {d.metric: d for d in compared(frames, replace(BY_USER, gauc_weight=weighting)).overall}
    assert by_metric[Metric.GAUC].candidate_values.mean == counted and by_metric[Metric.GAUC].p_value.defined
