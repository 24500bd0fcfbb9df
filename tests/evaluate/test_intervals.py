"""Intervals of all metrics: where they lie, what they are by user, and that chance is seeded."""

import polars as pl
import pytest

from recsys.evaluate import EvaluateConfig, evaluate
from recsys.evaluate.report import flat_metrics

CONFIG = EvaluateConfig(group_key="user", num_replicates=100)


def test_every_metric_of_the_report_lies_in_its_interval(predictions: pl.DataFrame) -> None:
    got = evaluate(predictions, CONFIG)
    wanted = {"auc", "gauc", "pr_auc", "log_loss", "normalized_entropy", "relative_information_gain", "brier_score"}
    wanted |= {"calibration_ratio", "calibration_error", "kolmogorov_smirnov"}
    wanted |= {f"{kind}_at_{share}" for kind in ("gain", "lift") for share in (0.01, 0.1)}
    assert set(got.intervals) == wanted
    for name, interval in got.intervals.items():
        assert interval.low.value_or(9) < got.metrics[name].value_or(9) < interval.high.value_or(-9), name
        assert interval.method.startswith("DeLong, by user" if name == "auc" else "bootstrap, by user"), name
    for end in ("low", "high"):
        gain, lift = (getattr(got.intervals[f"{kind}_at_0.1"], end).value for kind in ("gain", "lift"))
        assert lift == pytest.approx(gain / 0.1)


def test_the_same_rows_give_the_same_intervals(predictions: pl.DataFrame) -> None:
    assert evaluate(predictions, CONFIG).intervals == evaluate(predictions, CONFIG).intervals


def test_repeated_rows_of_a_user_do_not_narrow_intervals(predictions: pl.DataFrame) -> None:
    once = predictions.head(500).with_columns(user=pl.col("__row__"))
    four = pl.concat([once] * 4)
    by_user = [evaluate(frame, CONFIG).intervals for frame in (once, four)]
    by_row = evaluate(four, EvaluateConfig(num_replicates=100)).intervals
    for name in ("auc", "log_loss", "pr_auc"):
        width = [f[name].high.value_or(0) - f[name].low.value_or(0) for f in (*by_user, by_row)]
        assert width[1] == pytest.approx(width[0], rel=0.02), name
        assert width[2] < 0.65 * width[1], name  # half, but for the chance of few replicates


def test_machines_read_the_ends_or_the_reason(predictions: pl.DataFrame) -> None:
    flat = flat_metrics(evaluate(predictions.head(3), CONFIG))
    assert flat["auc.low"] is None and flat["auc.low.undefined_reason"] and "auc.interval" not in flat
    flat = flat_metrics(evaluate(predictions, CONFIG))
    assert isinstance(flat["log_loss.low"], float) and flat["log_loss.interval"] == "bootstrap, by user"
