"""The stage `evaluate`: scores in parts, slices without a passthrough column, a fitted map, checks of the data."""

import json
from pathlib import Path

import polars as pl
import pytest

from pipelines.evaluate import check_columns
from pipelines.predictions import split_files
from recsys.core.errors import ConfigError, DataError
from recsys.core.manifest import Manifest
from recsys.evaluate import EvaluateConfig, FittedCalibration
from tests.pipelines.world import SMALL, do

IN_PARTS = (*SMALL, "ingest.rows_per_file=90", "train.eval_batch_size=64")
ASKED = ("evaluate.frequency_slices=[C1]", "evaluate.calibration=platt", "evaluate.min_slice_rows=20")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    for stage in ("ingest", "train"):
        do(stage, folder, *IN_PARTS)
    do("evaluate", folder, *IN_PARTS, *ASKED)
    return folder


def data_of(runs: Path) -> Path:
    return next((runs / "data").glob("synthetic-*"))


def test_scores_of_many_files_are_one_file_in_row_order(runs: Path) -> None:
    data = data_of(runs)
    assert len(Manifest.read(data).splits["test"].files) > 2
    predictions = pl.read_parquet(runs / "small" / "evaluate" / "predictions.parquet")
    rows = pl.concat(split_files(data, "test", ["__row__", "__label__", "C1", "bayes_probability"]))
    assert predictions["__row__"].equals(rows["__row__"])
    assert predictions["label"].equals(rows["__label__"].alias("label"))
    assert predictions.columns[:5] == ["__row__", "label", "bayes_probability", "logit", "probability"]
    unseen = predictions["frequency of C1"].cast(pl.String).str.starts_with("unseen")
    assert unseen.equals((rows["C1"] == 0).alias("frequency of C1")) and unseen.any()
    assert not list((runs / "small" / "evaluate").glob("predictions.p*s"))


def test_a_column_that_files_lack_is_refused(runs: Path) -> None:
    with pytest.raises(DataError, match=r"part-00000.parquet: cannot read \['nothing'\]"):
        next(split_files(data_of(runs), "test", ["nothing"]))


def test_files_in_parts_score_as_one_file(runs: Path, tmp_path: Path) -> None:
    for stage in ("ingest", "train", "evaluate"):
        do(stage, tmp_path, *SMALL)
    one, many = (pl.read_parquet(each / "small" / "evaluate" / "predictions.parquet") for each in (tmp_path, runs))
    assert one["__row__"].equals(many["__row__"]) and one["label"].equals(many["label"])


def test_the_folder_holds_every_number(runs: Path) -> None:
    folder = runs / "small" / "evaluate"
    read = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert {row["column"] for row in read["slices"]} == {"frequency of C1"}
    assert read["metrics"]["log_loss.low"] < read["metrics"]["log_loss"] < read["metrics"]["log_loss.high"]
    assert FittedCalibration.from_json(read["calibration"]).split == "validation"
    assert set(read["calibration_effect"]["before"]) == set(read["calibration_effect"]["after"])
    assert {each["feature"] for each in read["data_checks"]["features"]} >= {"I1", "C1", "tags"}
    page = (folder / "report.html").read_text()
    assert all(f"<h2>{words}</h2>" in page for words in ("Data checks", "All metrics", "Calibration map", "Slices"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frequency_slices": ["I1"]}, "evaluate.frequency_slices='I1': no such categorical feature"),
        ({"frequency_slices": ["tags"]}, "a row has several ids"),
        ({"day_slices": ["C1"]}, "evaluate.day_slices='C1': this column is not kept"),
        ({"propensity": "C1", "target_propensity": "C2"}, "evaluate.propensity='C1'"),
    ],
)
def test_columns_are_refused_before_training(runs: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_columns(Manifest.read(data_of(runs)).schema, EvaluateConfig(**options))  # type: ignore[arg-type]
