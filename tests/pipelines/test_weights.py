"""Weights of rows and of values through all stages: trained, told, exported, and not asked for by `predict`."""

import json
from pathlib import Path

import polars as pl
import pytest

from recsys.core.manifest import Manifest
from tests.pipelines.world import MODEL, STAGES, do

ROWS = 900
COLUMNS = (
    "dataset=csv",
    "dataset.label=y",
    "dataset.weight=w",
    "dataset.numeric=[{name: price}]",
    "dataset.categorical=[{name: user}, {name: tags, multi_valued: true, pooling: weighted, weights: tag_weights}]",
    "evaluate.min_slice_rows=10",
    "evaluate.num_replicates=20",
    "evaluate.calibration=platt",
)


def raw() -> pl.DataFrame:
    rows = range(ROWS)
    return pl.DataFrame(
        {
            "y": [int((i * i + i // 3) % 7 < 3) for i in rows],
            "w": [i % 4 / 2 for i in rows],
            "price": [(i * 37 % 101) / 7 for i in rows],
            "user": [f"u{i % 13}" for i in rows],
            "tags": ["|".join(f"t{(i * 7 + k) % 11}" for k in range(i % 5)) for i in rows],
            "tag_weights": ["|".join(str((i + k) % 3 / 2) for k in range(i % 5)) for i in rows],
        }
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    raw().write_csv(folder / "rows.csv")
    for stage in STAGES:
        do(stage, folder, *MODEL, *COLUMNS, f"dataset.files=[{folder / 'rows.csv'}]")
    return folder


def test_the_report_counts_by_weight_and_says_so(runs: Path) -> None:
    folder = runs / "small" / "evaluate"
    predictions = pl.read_parquet(folder / "predictions.parquet")
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["weight"] == pytest.approx(predictions["__weight__"].sum())
    labels, weights = predictions["label"].to_numpy(), predictions["__weight__"].to_numpy()
    assert figures["positive_rate"] == pytest.approx((labels * weights).sum() / weights.sum())
    assert figures["context.rows count by"] == "column 'w'"
    assert figures["auc.interval"].startswith("bootstrap")
    assert "rows count by their weights" in (folder / "report.html").read_text()
    assert Manifest.read(next((runs / "data").glob("*-*"))).schema.weight == "w"


def test_raw_rows_without_weights_of_rows_get_the_scores_of_evaluate(runs: Path) -> None:
    """The exported file takes weights of values, and none of rows."""
    raw().drop("w", "y").write_csv(runs / "new.csv")
    common = (*MODEL, *COLUMNS, f"dataset.files=[{runs / 'rows.csv'}]")
    do("predict", runs, *common, f"predict.input={runs / 'new.csv'}")
    scores = pl.read_parquet(runs / "small" / "predict" / "scores.parquet")
    known = pl.read_parquet(runs / "small" / "evaluate" / "predictions.parquet")
    found = known.join(scores, on="__row__", suffix="_new")
    assert found.height == known.height and (found["logit"] - found["logit_new"]).abs().max() < 1e-5  # type: ignore[operator]
    parity = json.loads((runs / "small" / "export" / "parity.json").read_text())
    assert parity
    inputs = {i["name"] for i in json.loads((runs / "small" / "export" / "manifest.json").read_text())["inputs"]}
    assert inputs == {"price", "user", "tags", "tags__lengths", "tags__weights"}
