"""Paired errors against what they estimate: closed forms, SciPy's t, and how often a true null is rejected."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from recsys.evaluate.compare import methods_of
from recsys.evaluate.compare_config import CLICK_METRICS, CompareConfig, Metric
from recsys.evaluate.compare_errors import seed_error_of
from recsys.evaluate.compared import Values
from recsys.evaluate.paired import Part, row_errors
from recsys.evaluate.student import critical, two_sided_p
from recsys.metrics import MetricValue, auc, compare_auc
from recsys.metrics.probability import row_losses
from tests.evaluate.compare_world import world

CONFIG = CompareConfig(num_replicates=400)
ONE = [((0,), (1,))]


@pytest.mark.parametrize("degrees", [1.0, 1.7, 2.0, 5.3, 30.0, 1_500.0, 5_000.0])
@pytest.mark.parametrize("statistic", [0.0, -0.4, 1.96, 4.0])
def test_student_is_scipys(degrees: float, statistic: float) -> None:
    # From 2,000 degrees on it is the normal distribution, whose tail at 4 is 1% lighter than that of 5,000.
    relative = 1e-3 if degrees < 2_000 else 2e-2
    assert two_sided_p(statistic, degrees) == pytest.approx(2 * stats.t.sf(abs(statistic), degrees), rel=relative)


@pytest.mark.parametrize("degrees", [1.0, 3.3, 9.0, 200.0, math.inf])
@pytest.mark.parametrize("level", [0.0, 0.6, 0.95, 0.999])
def test_critical_values_are_scipys(degrees: float, level: float) -> None:
    assert critical(level, degrees) == pytest.approx(stats.t.ppf((1 + level) / 2, degrees), rel=1e-4, abs=1e-6)


def part(seed: int, *, users: int = 150, rows: int = 4, num_runs: int = 2, grouped: bool = True) -> Part:
    frames = world(seed, users=users, rows=rows, num_runs=num_runs)
    first = frames["run0"]
    groups = torch.from_numpy(first["user"].to_numpy(writable=True)) if grouped else None
    logits = tuple(torch.from_numpy(frame["logit"].to_numpy(writable=True)) for frame in frames.values())
    return Part(torch.from_numpy(first["label"].to_numpy(writable=True)).long(), logits, groups)


@pytest.mark.parametrize("grouped", [True, False])
def test_error_of_log_loss_is_that_of_a_mean_of_differences(grouped: bool) -> None:
    rows = part(1, grouped=grouped)
    signs = torch.where(rows.labels == 1, 1.0, -1.0)
    gaps = row_losses(rows.logits[1] * signs) - row_losses(rows.logits[0] * signs)
    sums = torch.zeros(150, dtype=torch.float64).index_add_(0, rows.groups, gaps) if rows.groups is not None else gaps
    expected = float(sums.std()) * sums.numel() ** 0.5 / rows.num_rows
    error = row_errors(rows, ONE, [Metric.LOG_LOSS], CONFIG)[0, Metric.LOG_LOSS]
    assert error.value == pytest.approx(expected, rel=0.12)  # 400 replicates know it to 3.5%


@pytest.mark.parametrize("grouped", [True, False])
def test_error_of_auc_is_delongs_and_of_several_runs_a_combination(grouped: bool) -> None:
    rows = part(2, num_runs=4, grouped=grouped)
    (error,) = row_errors(rows, ONE, [Metric.AUC], CONFIG).values()
    assert error == compare_auc(rows.labels, rows.logits[0], rows.logits[1], groups=rows.groups).standard_error
    (joint,) = row_errors(rows, [((0, 1), (2, 3))], [Metric.AUC], CONFIG).values()
    contrast, variance = torch.tensor([-0.5, -0.5, 0.5, 0.5], dtype=torch.float64), 0.0
    for first in range(4):
        for second in range(4):
            found = compare_auc(rows.labels, rows.logits[first], rows.logits[second], groups=rows.groups)
            variance += float(contrast[first] * contrast[second]) * found.covariance.value_or(math.nan)
    assert joint.value == pytest.approx(variance**0.5, rel=1e-9)


def test_all_metrics_have_an_error_near_that_of_fresh_samples() -> None:
    """Errors, as each sample estimates them, against how differences really vary from sample to sample."""
    metrics = list(CLICK_METRICS)
    config = CompareConfig(num_replicates=60)
    gaps: dict[Metric, list[float]] = {metric: [] for metric in metrics}
    errors: dict[Metric, list[float]] = {metric: [] for metric in metrics}
    for seed in range(60):
        rows = part(100 + seed)
        found = row_errors(rows, ONE, metrics, config)
        for metric in metrics:
            gaps[metric].append(rows.value(metric, 1).value_or(math.nan) - rows.value(metric, 0).value_or(math.nan))
            errors[metric].append(found[0, metric].value_or(math.nan))
    for metric in metrics:
        share = float(np.mean(errors[metric]) / np.std(gaps[metric], ddof=1))
        # The gap to 1 is folded, so its errors come out too large: the page says that its tests are cautious.
        low, high = (0.8, 1.7) if metric is Metric.CALIBRATION else (0.75, 1.3)
        assert low < share < high, f"{metric}: {share:.2f}"


FEW = "are needed for a test"
CASES: dict[str, tuple[list[int], list[float], list[float], str]] = {
    "no rows": ([], [], [], FEW),
    "one class": ([1] * 40, [0.1] * 40, list(range(40)), FEW),
    "nine positives": ([1] * 9 + [0] * 40, list(range(49)), list(range(49, 0, -1)), FEW),
    "the same scores": ([1, 0] * 20, list(range(40)), list(range(40)), "not vary"),
    "constant scores": ([1, 0] * 20, [0.0] * 40, [0.0] * 40, "not vary"),
    "the same order, both perfect": ([1, 0] * 20, [5.0, -5.0] * 20, [9.0, -9.0] * 20, "not vary"),
}


@pytest.mark.parametrize("case", CASES)
def test_undefined_with_its_reason(case: str) -> None:
    labels, first, second, reason = CASES[case]
    rows = Part(
        torch.tensor(labels, dtype=torch.int64), (torch.tensor(first).float(), torch.tensor(second).float()), None
    )
    found = row_errors(rows, ONE, [Metric.AUC, Metric.AVERAGE_PRECISION], CONFIG)
    for error in found.values():
        assert error.value is None and reason in error.undefined_reason


def test_few_groups_are_not_tested_however_many_rows() -> None:
    rows = part(3, users=9, rows=60)
    (error,) = row_errors(rows, ONE, [Metric.AUC], CONFIG).values()
    assert error.undefined_reason.startswith("9 groups hold positives and 9 negatives; 10 of each")


def test_with_too_many_rows_auc_alone_is_tested() -> None:
    rows = part(4)
    found = row_errors(rows, ONE, [Metric.AUC, Metric.LOG_LOSS], CompareConfig(max_bootstrap_rows=599))
    assert found[0, Metric.AUC].defined
    assert found[0, Metric.LOG_LOSS].undefined_reason == "600 rows, more than compare.max_bootstrap_rows=599"


def values(*by_run: float) -> Values:
    found = tuple(MetricValue.of(value) for value in by_run)
    spread = MetricValue.of(float(np.std(by_run, ddof=1))) if len(by_run) > 1 else MetricValue.undefined("one")
    return Values(mean=MetricValue.of(float(np.mean(by_run))), by_run=found, seed_deviation=spread)


def test_seed_error_is_welchs() -> None:
    first, second = (0.701, 0.703, 0.708), (0.71, 0.712)
    error, degrees = seed_error_of(values(*first), values(*second))
    welch = stats.ttest_ind(second, first, equal_var=False)
    gap = float(np.mean(second) - np.mean(first))
    assert error.value == pytest.approx(gap / welch.statistic) and degrees == pytest.approx(welch.df)
    assert two_sided_p(gap / error.value_or(1), degrees) == pytest.approx(welch.pvalue, rel=1e-4)


def test_a_lone_run_varies_as_the_other_method_does() -> None:
    error, degrees = seed_error_of(values(0.70, 0.72, 0.71), values(0.73))
    assert error.value == pytest.approx(0.01 * (1 / 3 + 1) ** 0.5) and degrees == 2, "one estimate, used twice"
    error, degrees = seed_error_of(values(0.70), values(0.73))
    assert error.value is None and degrees == math.inf


@pytest.mark.parametrize(
    ("runs", "names"),
    [
        (["a_seed1", "a_seed2", "b_seed1"], ["a", "b"]),
        (["a_seed1/compress/int8", "a_seed2/compress/int8", "a_seed1"], ["a/compress/int8", "a"]),
        (["x/b_seed10", "x/b_seed2"], ["x/b"]),
        (["a_seeds1", "a_seed1b", "seed1"], ["a_seeds1", "a_seed1b", "seed1"]),
    ],
)
def test_runs_that_differ_in_their_seed_are_one_method(runs: list[str], names: list[str]) -> None:
    assert [method.name for method in methods_of(runs, group_seeds=True)] == names
    assert [method.runs for method in methods_of(runs, group_seeds=False)] == [(run,) for run in runs]


def test_values_are_those_of_the_metrics() -> None:
    rows = part(5)
    assert rows.value(Metric.AUC, 0) == auc(rows.labels, rows.logits[0])
    ratio = rows.calibration_ratio(1).value_or(math.nan)
    assert ratio == pytest.approx(float(torch.sigmoid(rows.logits[1].double()).sum()) / rows.num_positives)
    assert rows.value(Metric.CALIBRATION, 1).value == pytest.approx(abs(ratio - 1))
