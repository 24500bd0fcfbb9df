"""`evaluate` on real frames: the numbers agree with scikit-learn, and nothing odd passes or crashes."""

import math

import polars as pl
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from recsys.core.errors import ConfigError, DataError
from recsys.evaluate import EvaluateConfig, evaluate


def test_overall_metrics_equal_scikit_learn(predictions: pl.DataFrame) -> None:
    got = evaluate(predictions, EvaluateConfig(group_key="user"))
    label, probability = predictions["label"].to_numpy(), predictions["probability"].to_numpy().astype("float64")
    assert got.metrics["auc"].value == pytest.approx(roc_auc_score(label, predictions["logit"].to_numpy()), abs=1e-12)
    assert got.metrics["log_loss"].value == pytest.approx(log_loss(label, probability), rel=1e-6)
    assert got.metrics["calibration_ratio"].value == pytest.approx(probability.mean() / label.mean(), rel=1e-6)
    assert (got.num_rows, got.num_positives) == (4000, label.sum())
    assert sum(b.count for b in got.reliability) == 4000
    assert math.isclose(sum(got.histogram.positives), 1) and math.isclose(sum(got.histogram.negatives), 1)


def test_share_of_the_possible(predictions: pl.DataFrame) -> None:
    metrics = evaluate(predictions, EvaluateConfig()).metrics
    label, bayes = predictions["label"].to_numpy(), predictions["bayes_probability"].to_numpy()
    best = roc_auc_score(label, bayes)
    assert metrics["bayes_auc"].value == pytest.approx(best, abs=1e-12)
    assert metrics["bayes_log_loss"].value == pytest.approx(log_loss(label, bayes), rel=1e-9)
    expected = (roc_auc_score(label, predictions["logit"].to_numpy()) - 0.5) / (best - 0.5)
    assert metrics["share_of_possible_auc"].value == pytest.approx(expected, abs=1e-12)
    assert 0.5 < expected < 1
    perfect = predictions.with_columns(logit=(pl.col("bayes_probability") / (1 - pl.col("bayes_probability"))).log())
    perfect = perfect.with_columns(probability="bayes_probability")
    assert evaluate(perfect, EvaluateConfig()).metrics["share_of_possible_auc"].value == 1
    assert "bayes_auc" not in evaluate(predictions.drop("bayes_probability"), EvaluateConfig()).metrics


def test_slices_equal_evaluating_their_rows_alone(predictions: pl.DataFrame) -> None:
    rows = evaluate(predictions, EvaluateConfig(slices=["device", "age"])).slices
    assert {row.column for row in rows} == {"device", "age"}
    for row in [row for row in rows if row.column == "device"]:
        alone = evaluate(predictions.filter(pl.col("device") == row.value), EvaluateConfig())
        assert row.metrics == alone.metrics and row.num_rows == alone.num_rows
    assert sum(row.num_rows for row in rows if row.column == "age") == 4000


def test_gauc_leaves_rows_without_a_group_out(predictions: pl.DataFrame) -> None:
    known = predictions.filter(pl.col("user") >= 100)
    unknown = predictions.with_columns(user=pl.when(pl.col("user") >= 100).then("user"))
    one = evaluate(known, EvaluateConfig(group_key="user")).metrics
    other = evaluate(unknown, EvaluateConfig(group_key="user")).metrics
    assert one["gauc"] == other["gauc"] and one["gauc_groups"].value == other["gauc_groups"].value == 200
    assert other["gauc_row_share"].value_or(1) < 0.7 < one["gauc_row_share"].value_or(0)
    text = unknown.with_columns(pl.col("user").cast(pl.String))
    assert evaluate(text, EvaluateConfig(group_key="user")).metrics["gauc"].value == pytest.approx(
        other["gauc"].value, abs=1e-12
    )


def test_small_and_one_class_slices_are_undefined_with_the_reason(predictions: pl.DataFrame) -> None:
    frame = predictions.with_columns(
        part=pl.when(pl.col("__row__") < 30)
        .then(pl.lit("few"))
        .otherwise(pl.when(pl.col("label") == 1).then(pl.lit("clicked")).otherwise(pl.lit("rest")))
    )
    rows = {row.value: row for row in evaluate(frame, EvaluateConfig(slices=["part"])).slices}
    assert rows["few"].metrics["log_loss"].undefined_reason == "only 30 rows, fewer than min_slice_rows=100"
    assert rows["clicked"].metrics["auc"].undefined_reason == f"all {rows['clicked'].num_rows} labels are 1"
    assert rows["clicked"].metrics["log_loss"].defined


def test_an_empty_frame_is_undefined_everywhere_and_no_error(predictions: pl.DataFrame) -> None:
    got = evaluate(predictions.clear(), EvaluateConfig(group_key="user", slices=["device", "age"]))
    assert {name for name, metric in got.metrics.items() if metric.defined} == {"gauc_groups", "gauc_groups_used"}
    assert got.metrics["auc"].undefined_reason == "there are no rows"
    assert (got.num_rows, got.reliability, got.slices, got.roc.true_rate, got.histogram.edges) == (0, (), (), (), ())


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_and_constant_scores(predictions: pl.DataFrame, label: int) -> None:
    frame = predictions.with_columns(
        label=pl.lit(label, pl.Int8), logit=pl.lit(0.0, pl.Float32), probability=pl.lit(0.5, pl.Float32)
    )
    metrics = evaluate(frame, EvaluateConfig(group_key="user")).metrics
    for name in ("auc", "gauc", "normalized_entropy", "share_of_possible_auc"):
        assert not metrics[name].defined, name
    assert metrics["log_loss"].value == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pl.lit(None, pl.Float32).alias("logit"), "'logit' holds 4000 null"),
        (pl.lit("x").alias("label"), "'label' is String"),
        (pl.lit(2, pl.Int8).alias("label"), "labels: 4000 of 4000 value.* neither 0 nor 1, the first at row 0"),
        (pl.when(pl.col("__row__") == 17).then(math.nan).otherwise("logit").alias("logit"), "1 of 4000 .*NaN.*row 17"),
        (pl.lit(0.25).alias("probability"), "differ from sigmoid"),
        (pl.lit(1.5).alias("bayes_probability"), r"bayes_probability: 4000 of 4000 .*outside \[0, 1\]"),
    ],
)
def test_bad_values_are_refused_by_name(predictions: pl.DataFrame, column: pl.Expr, words: str) -> None:
    with pytest.raises(DataError, match=words):
        evaluate(predictions.with_columns(column), EvaluateConfig())


def test_absent_columns_are_refused_by_name(predictions: pl.DataFrame) -> None:
    with pytest.raises(DataError, match="no column 'probability'"):
        evaluate(predictions.drop("probability"), EvaluateConfig())
    with pytest.raises(ConfigError, match=r"evaluate.group_key: no column 'visitor'"):
        evaluate(predictions, EvaluateConfig(group_key="visitor"))
    with pytest.raises(ConfigError, match=r"evaluate.slices: no column 'country'"):
        evaluate(predictions, EvaluateConfig(slices=["country"]))


def test_slices_of_one_label_are_warned_of(predictions: pl.DataFrame, caplog: pytest.LogCaptureFixture) -> None:
    day = pl.when(pl.col("label") == 1).then(pl.lit("clicked")).otherwise(pl.lit("other"))
    mixed = predictions.with_columns(day=pl.when(pl.int_range(pl.len()) < 3000).then(pl.lit("both")).otherwise(day))
    with caplog.at_level("WARNING"):
        evaluate(mixed, EvaluateConfig(slices=["day"]))
    positives = int(predictions["label"][3000:].sum())
    assert [record.message for record in caplog.records] == [
        f"slice day=other: all {1000 - positives} rows have label 0, so its AUC is undefined",
        f"slice day=clicked: all {positives} rows have label 1, so its AUC is undefined",
    ]
