"""Clicks and conversions learned together: every stage tells of both, and the exported file says both."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from pipelines.predictions import split_files
from recsys.core.errors import ConfigError
from recsys.evaluate import FittedCalibration
from tests.pipelines.world import SMALL, do

SCORE = Path(__file__).resolve().parents[2] / "tools" / "serve_example" / "score.py"
ROWS = (*SMALL, "dataset.conversion_rate=0.4", "dataset.positive_rate=0.5", "evaluate.data_checks=true")
SHARED = (
    "model=mmoe",
    "model.embedding_dim=4",
    "model.num_experts=2",
    "model.expert_units=[8]",
    "model.tower_units=[4]",
)
OF_MMOE = tuple(word for word in ROWS if not word.startswith("model"))
TOGETHER = (*OF_MMOE, *SHARED, "evaluate.calibration=platt", "name=together")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several_labels")
    for stage in ("run", "predict"):
        do(stage, folder, *TOGETHER)
    return folder


def predictions(runs: Path, name: str, label: str) -> pl.DataFrame:
    evaluated = runs / name / "evaluate"
    folder = evaluated if label == "label" else evaluated / "labels" / label
    return pl.read_parquet(folder / "predictions.parquet")


def test_each_label_is_reported_by_itself(runs: Path) -> None:
    data = next((runs / "data").glob("synthetic-*"))
    raw = pl.concat(pl.read_parquet(file) for file in sorted((data / "raw").glob("*.parquet")))
    for label in ("label", "conversion"):
        found = predictions(runs, "together", label)
        rows = found["__row__"].to_list()
        assert found["label"].to_list() == raw[label][rows].to_list()
        bayes = "bayes_probability" if label == "label" else "bayes_probability_conversion"
        assert found["bayes_probability"].to_list() == raw[bayes][rows].to_list()
        folder = runs / "together/evaluate" / ("." if label == "label" else f"labels/{label}")
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["auc"] == pytest.approx(roc_auc_score(found["label"], found["logit"]), abs=1e-9)
        assert metrics["log_loss"] == pytest.approx(log_loss(found["label"], found["probability"]), rel=1e-5)
        assert metrics["context.label"] == f"{label}, one of 2 that are learned"
        assert "conversion" in (folder / "report.html").read_text() or label == "label"
    assert not predictions(runs, "together", "conversion")["logit"].equals(
        predictions(runs, "together", "label")["logit"]
    )


def test_both_are_watched_while_training(runs: Path) -> None:
    (record, *_) = json.loads((runs / "together/train/history.json").read_text())
    assert {"validation_auc", "validation_auc_conversion", "validation_log_loss_conversion"} <= set(record)
    metrics = json.loads((runs / "together/train/metrics.json").read_text())
    assert 0 < metrics["validation.auc_conversion"] < 1


def test_the_exported_file_says_both_calibrated(runs: Path) -> None:
    bundle = runs / "together/export"
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["labels"] == ["label", "conversion"]
    parity = json.loads((bundle / "parity.json").read_text())
    assert parity["other_labels"]["conversion"]["models"][0]["max_logit_error"] < 1e-4
    assert "columns `label`, `conversion`" in (bundle / "MODEL_CARD.md").read_text()
    assert "dims: [ -1, 2 ]" in (bundle / "config.pbtxt").read_text()
    scores = pl.read_parquet(runs / "together/predict/scores.parquet")
    for label, ending in (("label", ""), ("conversion", "_conversion")):
        logits, tested = scores[f"logit{ending}"].to_torch(), predictions(runs, "together", label)
        torch.testing.assert_close(logits, tested["logit"].to_torch(), rtol=1e-5, atol=1e-5)
        folder = runs / "together/evaluate" / ("." if label == "label" else f"labels/{label}")
        fitted = FittedCalibration.from_json(json.loads((folder / "calibration.json").read_text()))
        expected = torch.sigmoid(fitted.apply(logits)).float()
        torch.testing.assert_close(scores[f"probability{ending}"].to_torch(), expected, rtol=0, atol=1e-6)
    golden = pl.read_parquet(bundle / "golden.parquet")
    assert {"logit_conversion", "probability_conversion", "golden_label_conversion"} <= set(golden.columns)


def test_a_stranger_scores_both(runs: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(SCORE), str(runs / "together/export")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "row 0: logit of label " in done.stdout and "row 0: logit of conversion " in done.stdout


def test_two_ranks_learn_both_as_one_does(runs: Path) -> None:
    alone, name = json.loads((runs / "together/train/history.json").read_text()), "name=two"
    for stage in ("train", "evaluate"):
        do(stage, runs, *TOGETHER, name, "train.run_on.num_processes=2")
    together = json.loads((runs / "two/train/history.json").read_text())
    for key in ("validation_auc", "validation_auc_conversion"):
        assert together[0][key] == pytest.approx(alone[0][key], abs=0.02)  # dropout and batch norm are each rank's own
    assert predictions(runs, "two", "conversion").height == predictions(runs, "together", "conversion").height


def test_a_model_of_one_task_learns_the_main_label_alone(runs: Path) -> None:
    options = (*ROWS, "name=alone")
    do("run", runs, *options)
    assert not (runs / "alone/evaluate/labels").exists()
    assert json.loads((runs / "alone/export/manifest.json").read_text())["labels"] == ["label"]
    with pytest.raises(ConfigError, match=r"compare.label='conversion': alone did not learn it; it has \['label'\]"):
        do("compare", runs, "compare.runs=[together,alone]", "compare.label=conversion", "name=cmp")


def test_runs_are_compared_by_any_label(runs: Path) -> None:
    do("train", runs, *TOGETHER, "seed=2", "name=again")
    do("evaluate", runs, *TOGETHER, "seed=2", "name=again")
    do("compare", runs, "compare.runs=[together,again]", "compare.label=conversion", "name=cmp")
    (first, *_) = json.loads((runs / "compare/cmp/compare.json").read_text())["overall"]
    found = [
        roc_auc_score(rows["label"], rows["logit"])
        for rows in (predictions(runs, name, "conversion") for name in ("together", "again"))
    ]
    assert first["difference"]["value"] == pytest.approx(found[1] - found[0], abs=1e-12)


def test_encoded_rows_hold_both(runs: Path) -> None:
    data = next((runs / "data").glob("synthetic-*"))
    rows = pl.concat(split_files(data, "train", ["__label__", "__label__conversion"]))
    assert rows["__label__conversion"].dtype == pl.Float32 and 0 < rows["__label__conversion"].sum() < rows.height
