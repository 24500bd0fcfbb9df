"""Clicks and conversions learned together: every stage tells of both, and the exported file says both."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from rich.table import Table
from sklearn.metrics import log_loss, roc_auc_score

from pipelines import compress
from pipelines.predictions import split_files
from recsys.core.errors import ConfigError, DataError
from recsys.evaluate import FittedCalibration
from tests.pipelines.world import MODEL, SMALL, do, make_run

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


def table(folder: Path, *, purchase: list[int], unlike: int = 0) -> tuple[str, ...]:
    """400 rows in the order of their splits: a click on every other one; `unlike` purchases more without a click."""
    rows = pl.DataFrame({"click": [i % 2 for i in range(400)], "item": [f"i{i % 7}" for i in range(400)]})
    bought = [int(i % 2 and value) for i, value in enumerate(purchase)]
    bought[: 2 * unlike : 2] = [1] * unlike
    rows.with_columns(purchase=pl.Series(bought)).write_csv(folder / "rows.csv")
    columns = ("dataset.label=click", "dataset.other_labels=[purchase]", "dataset.categorical=[{name: item}]")
    split = "dataset.split={method: order, train: 0.8, validation: 0.1, test: 0.1, column: ''}"
    small = ("train.epochs=1", "train.batch_size=100", "evaluate.num_replicates=20", "evaluate.data_checks=false")
    exported = ("export.num_parity_rows=40", "export.num_golden_rows=40", "export.row_types=[float32]")
    return ("dataset=csv", f"dataset.files=[{folder / 'rows.csv'}]", *columns, split, *small, *exported)


def test_what_is_undefined_of_one_label_is_told_of_that_label(tmp_path: Path) -> None:
    options = table(tmp_path, purchase=[int(i < 320 and i % 3 > 0) for i in range(400)])
    do("run", tmp_path, *options, *SHARED, "name=whole")
    cut = do_compress(tmp_path, *options, *SHARED, "from=whole", "embedding=int8", "name=cut")
    rows = {str(cells[0]): cells[1:] for cells in zip(*(column.cells for column in cut.columns), strict=True)}
    assert rows["test AUC of purchase"] == ("undefined", "undefined", "undefined")
    assert "test AUC" in rows and "test log loss of purchase" in rows
    with pytest.raises(DataError, match=r"label 'purchase' of the validation rows: .* all 40 labels are 0"):
        do("evaluate", tmp_path, *options, *SHARED, "name=whole", "evaluate.calibration=platt", "overwrite=true")


def do_compress(folder: Path, *overrides: str) -> Table:
    """Compress, and give what is shown of it."""
    run = do("compress", folder, *overrides)
    return compress.comparison(make_run(folder, *overrides[:-3], "name=whole"), run)


def test_esmm_refuses_labels_that_do_not_follow_one_another(tmp_path: Path) -> None:
    esmm = ("model=esmm", "model.embedding_dim=4", "model.tower_units=[4]")
    options = table(tmp_path, purchase=[int(i % 3 > 0) for i in range(400)])
    do("ingest", tmp_path, *options, *esmm)
    do("train", tmp_path, *options, *esmm, "name=funnel")
    swapped = ("dataset.label=purchase", "dataset.other_labels=[click]", "name=swapped")
    do("ingest", tmp_path, *options, *esmm, *swapped)
    for stage, search in {"train": (), "search": ("search=mde", "search.compression_ratio=2")}.items():
        with pytest.raises(
            ConfigError, match=r"label 'click' is 1 on \d+ training rows where 'purchase', .*from the first"
        ):
            do(stage, tmp_path, *options, *esmm, *swapped, *search)
    do("train", tmp_path, *options, *SHARED, *swapped)
    for unlike, name in ((1, "few"), (9, "many")):
        (tmp_path / name).mkdir()
        few = table(tmp_path / name, purchase=[1] * 400, unlike=unlike)
        do("ingest", tmp_path, *few, *esmm)
        if unlike == 1:
            do("train", tmp_path, *few, *esmm, f"name={name}")
            continue
        with pytest.raises(ConfigError, match="label 'purchase' is 1 on 9 training rows where 'click'"):
            do("train", tmp_path, *few, *esmm, f"name={name}")


def test_searches_say_that_they_score_by_the_mean(runs: Path) -> None:
    found = do("search", runs, *TOGETHER, "search=matryoshka", "search.compression_ratio=2", "name=found")
    frontier = json.loads((found.stage("search") / "matryoshka" / "frontier.json").read_text())
    assert frontier["metric"] == "mean AUC of all labels"


def test_a_number_among_several_labels_is_not_told_to_be_the_only_one(tmp_path: Path) -> None:
    options = table(tmp_path, purchase=[1] * 400)
    text = (tmp_path / "rows.csv").read_text().replace("1,i1,1", "1,i1,3", 1)
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(DataError, match=r"column 'purchase': '3' is not a label. Each of several") as told:
        do("ingest", tmp_path, *options, *SHARED)
    assert "label_kind" not in str(told.value)


def test_labels_of_one_class_in_validation_are_told_before_training(tmp_path: Path) -> None:
    rows = pl.DataFrame({"y": [0, 1] * 40 + [0] * 20, "item": [f"i{i % 7}" for i in range(100)]})
    rows.write_parquet(tmp_path / "rows.parquet")
    options = (
        *MODEL,
        "dataset=parquet",
        f"dataset.files=[{tmp_path / 'rows.parquet'}]",
        "dataset.label=y",
        "dataset.categorical=[{name:item}]",
        "dataset.split.method=order",
        "name=one_class",
    )
    do("ingest", tmp_path / "runs", *options)
    with pytest.raises(ConfigError, match="all 10 validation rows have the label 0, so no epoch has an AUC"):
        do("train", tmp_path / "runs", *options)
    assert not (tmp_path / "runs/one_class/train").exists()
