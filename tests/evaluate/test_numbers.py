"""Evaluation of predicted numbers: figures as NumPy has them, by slice and by bin, and a page that shows them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.evaluate import Calibration, EvaluateConfig, NumberEvaluation, Predictions, evaluate_numbers, write_numbers

CONFIG = EvaluateConfig(slices=["device", "age"], group_key="user", num_bins=10, num_replicates=100)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    """3,000 rows; users differ in how far off predictions are."""
    generator = np.random.default_rng(5)
    user = generator.integers(0, 150, 3000)
    label = generator.integers(1, 6, 3000).astype(np.float32)
    noise = generator.normal(0, 0.6, 150)[user] + generator.normal(0, 0.4, 3000)
    return pl.DataFrame(
        {
            "__row__": np.arange(3000),
            "label": label,
            "prediction": (1 + 0.6 * label + noise).astype(np.float32),
            "user": user,
            "device": generator.choice(["phone", "tablet", '<script>alert("x")</script>'], 3000),
            "age": generator.gamma(4, 9, 3000),
        }
    )


@pytest.fixture(scope="module")
def found(frame: pl.DataFrame) -> NumberEvaluation:
    return evaluate_numbers(frame, CONFIG)


def expected(frame: pl.DataFrame) -> dict[str, float]:
    label, prediction = (frame[name].to_numpy().astype(np.float64) for name in ("label", "prediction"))
    error = prediction - label
    return {
        "rmse": np.sqrt((error**2).mean()),
        "mae": np.abs(error).mean(),
        "r2": 1 - (error**2).sum() / ((label - label.mean()) ** 2).sum(),
        "mean_error": error.mean(),
        "mean_label": label.mean(),
        "mean_prediction": prediction.mean(),
        "label_std": label.std(),
    }


def test_metrics_of_all_rows_and_of_slices(frame: pl.DataFrame, found: NumberEvaluation) -> None:
    assert {name: value.value for name, value in found.metrics.items()} == pytest.approx(expected(frame), rel=1e-6)
    (phone,) = (row for row in found.slices if row.value == "phone")
    own = frame.filter(pl.col("device") == "phone")
    assert phone.num_rows == own.height
    assert {name: value.value for name, value in phone.metrics.items()} == pytest.approx(expected(own), rel=1e-6)
    assert sum(row.num_rows for row in found.slices if row.column == "age") == frame.height


def test_intervals_know_users(frame: pl.DataFrame, found: NumberEvaluation) -> None:
    alone = evaluate_numbers(frame, replace(CONFIG, group_key=""))
    widths = []
    for each in (found, alone):
        interval = each.intervals["mean_error"]
        low, high = interval.low.value, interval.high.value
        assert low is not None and high is not None and low < (each.metrics["mean_error"].value or 0) < high
        widths.append(high - low)
        row = next(row for row in each.slices if row.value == "phone")
        assert row.rmse_interval.low.value_or(9) < row.metrics["rmse"].value_or(0) < row.rmse_interval.high.value_or(0)
    assert widths[0] > 2 * widths[1], "rows of a user are off together"
    assert found.intervals["rmse"].method == "bootstrap, by user"


def test_bins_hold_all_rows_in_order(frame: pl.DataFrame, found: NumberEvaluation) -> None:
    assert [each.num_rows for each in found.bins] == [300] * 10
    ordered = frame.sort("prediction").head(300)
    first = found.bins[0]
    assert first.mean_label == pytest.approx(ordered["label"].mean())
    assert first.mean_prediction == pytest.approx(ordered["prediction"].mean(), rel=1e-6)
    assert first.label_interval.low.value_or(9) < first.mean_label < first.label_interval.high.value_or(0)


def test_equal_predictions_are_one_bin(frame: pl.DataFrame) -> None:
    constant = frame.with_columns(pl.lit(3.0).cast(pl.Float32).alias("prediction"))
    (only,) = evaluate_numbers(constant, CONFIG).bins
    assert only.num_rows == frame.height


def test_weights_count_as_rows(frame: pl.DataFrame) -> None:
    weighted = frame.with_columns((pl.col("__row__") % 3).cast(pl.Float32).alias("__weight__"))
    repeated = pl.concat([frame.filter(pl.col("__row__") % 3 >= times) for times in (1, 2)])
    found, wanted = evaluate_numbers(weighted, CONFIG), evaluate_numbers(repeated, CONFIG)
    for name, value in wanted.metrics.items():
        assert found.metrics[name].value == pytest.approx(value.value, rel=1e-6)
    assert found.weight == repeated.height


def test_parts_of_a_file_give_the_same(frame: pl.DataFrame, found: NumberEvaluation, tmp_path: Path) -> None:
    frame.write_parquet(tmp_path / "p.parquet")
    source = replace(Predictions.read(tmp_path / "p.parquet"), rows_at_once=700)
    parts = evaluate_numbers(source, CONFIG)
    assert [b.num_rows for b in parts.bins] == [b.num_rows for b in found.bins]
    for mine, other in zip(parts.slices, found.slices, strict=True):
        assert mine.value == other.value
        assert mine.metrics["rmse"].value == pytest.approx(other.metrics["rmse"].value)


def test_more_rows_than_memory(frame: pl.DataFrame, found: NumberEvaluation) -> None:
    streamed = evaluate_numbers(frame, replace(CONFIG, max_rows_in_memory=1000))
    assert streamed.metrics["rmse"].value == pytest.approx(found.metrics["rmse"].value)
    assert not streamed.bins and "max_bootstrap_rows=1,000" in streamed.intervals["rmse"].low.undefined_reason


def test_small_slices_and_no_rows(frame: pl.DataFrame) -> None:
    few = evaluate_numbers(frame.head(50), CONFIG)
    assert all("fewer than min_slice_rows=100" in row.metrics["rmse"].undefined_reason for row in few.slices)
    nothing = evaluate_numbers(frame.clear(), CONFIG)
    assert nothing.num_rows == 0 and "no rows" in nothing.metrics["rmse"].undefined_reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration": Calibration.PLATT}, "evaluate.calibration=platt: this speaks of clicks"),
        ({"gain_shares": [0.5]}, r"evaluate.gain_shares=\[0.5\]: this speaks of clicks"),
        ({"propensity": "p", "target_propensity": "q"}, "evaluate.propensity=p: this speaks of clicks"),
        ({"group_key": "absent"}, "evaluate.group_key: no column 'absent'"),
        ({"slices": ["absent"]}, "evaluate.slices: no column 'absent'"),
    ],
)
def test_options_that_make_no_sense(frame: pl.DataFrame, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate_numbers(frame, EvaluateConfig(**options))  # type: ignore[arg-type]


def test_bad_predictions(frame: pl.DataFrame) -> None:
    with pytest.raises(DataError, match="predictions have no column 'prediction'"):
        evaluate_numbers(frame.drop("prediction"), EvaluateConfig())
    diverged = frame.with_columns(pl.lit(float("nan")).alias("prediction"))
    with pytest.raises(DataError, match=r"predictions: 3000 of 3000 value\(s\) not finite"):
        evaluate_numbers(diverged, EvaluateConfig())


def test_the_page_and_its_numbers(frame: pl.DataFrame, found: NumberEvaluation, tmp_path: Path) -> None:
    history = [{"epoch": e, "train_loss": 1.5 / e, "validation_r2": 0.1 * e, "learning_rate": 0.1} for e in (1, 2)]
    write_numbers(found, tmp_path, {"model": "DeepFM", "dataset": "made"}, history=history)
    page = (tmp_path / "report.html").read_text()
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures["rmse"] == found.metrics["rmse"].value and figures["rmse.low"] < figures["rmse"]
    assert figures["context.model"] == "DeepFM"
    for part in ("RMSE", "R²", "Predicted and actual", "Mean label by prediction", "by slice", "prefers-color-scheme"):
        assert part in page, part
    assert not re.search(r"https?://|<link|<script src|@import|url\((?!#)", page), "nothing is loaded from anywhere"
    assert "<script>alert" not in page
    slices = json.loads((tmp_path / "slices.json").read_text())
    assert {row["column"] for row in slices} == {"device", "age"}
    assert len(json.loads((tmp_path / "bins.json").read_text())) == 10


def test_a_model_worse_than_the_mean_is_told_so(frame: pl.DataFrame, tmp_path: Path) -> None:
    worse = evaluate_numbers(frame.with_columns((-pl.col("label")).alias("prediction")), EvaluateConfig())
    write_numbers(worse, tmp_path, {})
    assert "no better than predicting the mean label for every row" in (tmp_path / "report.html").read_text()
