"""An evaluation counts a row of weight 2 as two rows, one of weight 0 as none, and says so."""

import polars as pl
import pytest

from recsys.core.names import WEIGHT
from recsys.evaluate import Calibration, EvaluateConfig, FittedCalibration, evaluate
from recsys.evaluate.report import flat_metrics, render
from recsys.metrics import ScoreCounts

CONFIG = EvaluateConfig(group_key="user", slices=["device"], num_replicates=20)


@pytest.fixture
def weighted(predictions: pl.DataFrame) -> pl.DataFrame:
    return predictions.with_row_index("at").with_columns((pl.col("at") * 7 % 3).cast(pl.Float32).alias(WEIGHT))


def repeated(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(pl.all().repeat_by(pl.col(WEIGHT).cast(pl.UInt32)).explode(empty_as_null=False)).drop(WEIGHT)


def test_metrics_are_those_of_repeated_rows(weighted: pl.DataFrame) -> None:
    found, expected = evaluate(weighted, CONFIG), evaluate(repeated(weighted), CONFIG)
    uncertain = {"auc_standard_error"}
    assert found.metrics.keys() == expected.metrics.keys()
    for name in found.metrics.keys() - uncertain:
        assert found.metrics[name].value == pytest.approx(expected.metrics[name].value, rel=1e-9), name
    assert "weighted" in found.metrics["auc_standard_error"].undefined_reason
    areas = {row.value: row.metrics["auc"].value for row in expected.slices}
    for row in found.slices:
        assert row.metrics["auc"].value == pytest.approx(areas[row.value])
        assert not row.versus_rest.difference.defined
    assert found.roc.true_rate[-1] == 1 and sum(found.histogram.positives) == pytest.approx(1)
    assert found.reliability == ()


def test_it_says_so(weighted: pl.DataFrame, predictions: pl.DataFrame) -> None:
    found = evaluate(weighted, CONFIG)
    assert (found.num_rows, found.weight) == (predictions.height, weighted[WEIGHT].sum())
    assert flat_metrics(found)["weight"] == found.weight
    page = render(found, {})
    assert "rows count by their weights" in page
    assert "weight" not in flat_metrics(evaluate(predictions, CONFIG))


def test_intervals_are_of_weighted_rows(weighted: pl.DataFrame) -> None:
    for key in ("user", ""):
        found = evaluate(weighted, EvaluateConfig(group_key=key, num_replicates=50))
        for name in ("auc", "log_loss", "calibration_ratio", *(["gauc"] if key else [])):
            interval = found.intervals[name]
            assert interval.low.value_or(9) < found.metrics[name].value_or(-1) < interval.high.value_or(-9), name
            assert interval.method.startswith("bootstrap")


def test_weights_of_one_change_no_metric(predictions: pl.DataFrame) -> None:
    config = EvaluateConfig(group_key="user", num_replicates=0)
    ones = evaluate(predictions.with_columns(pl.lit(1.0).alias(WEIGHT)), config)
    for name, value in evaluate(predictions, config).metrics.items():
        if name != "auc_standard_error":
            assert ones.metrics[name].value == pytest.approx(value.value, rel=1e-12), name


def test_no_row_that_weighs_anything(predictions: pl.DataFrame) -> None:
    found = evaluate(predictions.with_columns(pl.lit(0.0).alias(WEIGHT)), EvaluateConfig(group_key="user"))
    assert "no row has a weight above 0" in found.metrics["auc"].undefined_reason
    assert render(found, {})


def test_in_parts_and_policies(weighted: pl.DataFrame) -> None:
    whole = evaluate(weighted, CONFIG)
    parts = evaluate(weighted, EvaluateConfig(group_key="user", max_rows_in_memory=900, num_replicates=0))
    assert parts.metrics["gauc"].value == pytest.approx(whole.metrics["gauc"].value, rel=1e-12)
    logged = weighted.with_columns(p=0.5, q=0.25)
    found = evaluate(logged, EvaluateConfig(propensity="p", target_propensity="q", num_replicates=0))
    assert {"weights of their own" in policy.value.undefined_reason for policy in found.policies.values()} == {True}


def test_a_calibration_takes_weights(weighted: pl.DataFrame) -> None:
    twice = repeated(weighted)
    labels, logits, weights = (weighted[name].cast(pl.Float64).to_torch() for name in ("label", "logit", WEIGHT))
    plain = ScoreCounts.from_rows(twice["label"].to_torch(), twice["logit"].cast(pl.Float64).to_torch())
    maps = [
        FittedCalibration.fit(Calibration.PLATT, counts, split="validation").map
        for counts in (ScoreCounts.from_rows(labels, logits, weights), plain)
    ]
    assert maps[0].apply(logits).tolist() == pytest.approx(maps[1].apply(logits).tolist(), rel=1e-6)
