"""Rows that come in parts, from a file, or that are too many to hold give the numbers of all rows at once."""

import math
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.evaluate import EvaluateConfig, Predictions, evaluate
from recsys.evaluate.result import Metrics
from recsys.metrics import GroupWeight

SUMMED = ("calibration_ratio", "mean_probability")  # floating-point sums: parts may move the last digit


def assert_equal(one: Metrics, other: Metrics) -> None:
    assert set(one) == set(other)
    for name, value in one.items():
        if name in SUMMED and value.defined:
            assert other[name].value == pytest.approx(value.value, rel=1e-12), name
        else:
            assert other[name] == value, name


@pytest.mark.parametrize("rows_at_once", [17, 300, 599, 601])
@pytest.mark.parametrize("group_key", ["", "user"])
def test_any_parts_give_the_same_evaluation(predictions: pl.DataFrame, rows_at_once: int, group_key: str) -> None:
    frame = predictions.head(600)
    config = EvaluateConfig(slices=["device", "age"], group_key=group_key, num_replicates=10)
    whole = evaluate(frame, config)
    parts = evaluate(replace(Predictions.of(frame), rows_at_once=rows_at_once), config)
    assert_equal(whole.metrics, parts.metrics)
    assert (whole.reliability, whole.roc, whole.gain) == (parts.reliability, parts.roc, parts.gain)
    assert (whole.histogram, whole.intervals) == (parts.histogram, parts.intervals)
    for one, other in zip(whole.slices, parts.slices, strict=True):
        assert (one.column, one.value, one.num_rows) == (other.column, other.value, other.num_rows)
        assert one.versus_rest == other.versus_rest
        assert_equal(one.metrics, other.metrics)


def test_a_file_gives_what_its_frame_gives(predictions: pl.DataFrame, tmp_path: Path) -> None:
    predictions.write_parquet(tmp_path / "p.parquet", row_group_size=500)
    config = EvaluateConfig(slices=["device"], num_replicates=0)
    file = replace(Predictions.read(tmp_path / "p.parquet"), rows_at_once=900)
    assert file.num_rows == 4000
    one, other = evaluate(file, config), evaluate(predictions, config)
    assert_equal(one.metrics, other.metrics)
    assert [row.num_rows for row in one.slices] == [row.num_rows for row in other.slices]


@pytest.mark.parametrize("weight", list(GroupWeight))
@pytest.mark.parametrize("kind", [pl.Int64, pl.UInt64, pl.String])
def test_groups_beyond_memory_are_averaged_in_parts(
    predictions: pl.DataFrame, weight: GroupWeight, kind: pl.DataType
) -> None:
    keys = pl.when(pl.col("user") > 20).then("user").cast(kind)
    frame = predictions.with_columns(user=keys)
    config = EvaluateConfig(group_key="user", gauc_weight=weight, num_replicates=0, slices=["device"])
    whole, parts = evaluate(frame, config), evaluate(frame, replace(config, max_rows_in_memory=333))
    assert parts.metrics["gauc"].value == pytest.approx(whole.metrics["gauc"].value, abs=1e-14)
    for name in ("gauc_groups", "gauc_groups_used", "gauc_row_share"):
        assert parts.metrics[name] == whole.metrics[name]
    reason = "4,000 rows are more than max_rows_in_memory=333"
    assert parts.metrics["auc_standard_error"].undefined_reason == reason
    assert parts.intervals["auc"].low.undefined_reason == reason
    for one, other in zip(whole.slices, parts.slices, strict=True):
        assert_equal(
            {**one.metrics, "auc_standard_error": other.metrics["auc_standard_error"]},
            other.metrics,
        )
        assert other.versus_rest.p_value.undefined_reason == reason


def test_too_many_rows_to_resample_are_told(predictions: pl.DataFrame) -> None:
    found = evaluate(predictions, EvaluateConfig(max_bootstrap_rows=3999)).intervals
    assert found["auc"].low.defined and "max_bootstrap_rows=3,999" in found["log_loss"].low.undefined_reason
    off = evaluate(predictions, EvaluateConfig(num_replicates=0)).intervals
    assert "num_replicates=0" in off["lift_at_0.1"].high.undefined_reason


def test_a_bad_row_is_named_by_its_part(predictions: pl.DataFrame) -> None:
    logit = pl.when(pl.col("__row__") == 2017).then(math.nan).otherwise("logit").alias("logit")
    source = replace(Predictions.of(predictions.with_columns(logit)), rows_at_once=1000)
    with pytest.raises(DataError, match=r"rows from 2,000 on, counted from there: .*NaN, the first at row 17"):
        evaluate(source, EvaluateConfig())


def test_a_column_with_too_many_values_is_not_sliced_and_says_so(
    predictions: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.evaluate.slices.MAX_DISTINCT", 100)
    rows = evaluate(predictions, EvaluateConfig(slices=["age", "device"], num_replicates=0)).slices
    assert (rows[0].column, rows[0].value, rows[0].num_rows) == ("age", "(all)", 4000)
    assert "more than 100 different values" in rows[0].metrics["auc"].undefined_reason
    assert rows[1].column == "device" and rows[1].metrics["auc"].defined
