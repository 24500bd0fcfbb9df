"""Labels that are numbers through all stages: trained, told, exported, predicted, searched; and what refuses them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from pipelines.stage import read_record
from recsys.core.errors import ConfigError
from recsys.core.manifest import Manifest
from recsys.export.manifest import BundleManifest
from recsys.export.parity import Parity
from tests.pipelines.world import MODEL, do

SCORE = Path(__file__).resolve().parents[2] / "tools" / "serve_example" / "score.py"
ROWS = 1500
COLUMNS = (
    "dataset=csv",
    "dataset.label=price",
    "dataset.label_kind=number",
    "dataset.weight=w",
    "dataset.numeric=[{name: size, transform: standard}]",
    "dataset.categorical=[{name: town}, {name: tags, multi_valued: true}]",
    "dataset.passthrough=[town]",
    "evaluate.slices=[town]",
    "evaluate.frequency_slices=[town]",
    "evaluate.min_slice_rows=10",
    "evaluate.num_replicates=20",
    "train.epochs=4",
)


def raw() -> pl.DataFrame:
    """Prices near a hundred thousand, told by size and town, in units that no learning rate was made for."""
    rows = np.arange(ROWS)
    size, town = (rows * 37 % 101) / 10, rows % 7
    price = 100_000 + 3_000 * size + 5_000 * (town % 3) + 500 * np.sin(rows)
    return pl.DataFrame(
        {
            "price": price,
            "w": rows % 3 / 2,
            "size": size,
            "town": [f"t{number}" for number in town],
            "tags": ["|".join(f"g{(i * 7 + k) % 11}" for k in range(i % 4)) for i in rows],
        }
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    raw().write_csv(folder / "rows.csv")
    do("run", folder, *MODEL, *of(folder))
    return folder


def of(folder: Path) -> tuple[str, ...]:
    return (*COLUMNS, f"dataset.files=[{folder / 'rows.csv'}]")


def test_it_learns_and_reports_in_the_labels_units(runs: Path) -> None:
    history = json.loads((runs / "small" / "train" / "history.json").read_text())
    figures = json.loads((runs / "small" / "train" / "metrics.json").read_text())
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    best = max(history, key=lambda row: row["validation_r2"])
    assert min(history, key=lambda row: row["validation_rmse"]) is best
    assert figures["validation.r2"] == best["validation_r2"] > 0.2
    assert figures["validation.rmse"] == best["validation_rmse"] and figures["validation.mae"] == best["validation_mae"]
    assert 500 < figures["validation.mae"] < figures["validation.rmse"] < 20_000


def test_the_evaluation_says_what_the_predictions_are(runs: Path) -> None:
    folder = runs / "small" / "evaluate"
    rows = pl.read_parquet(folder / "predictions.parquet")
    assert rows.columns == ["__row__", "label", "town", "__weight__", "prediction", "frequency of town"]
    assert (rows["label"] - raw()["price"].cast(pl.Float32).gather(rows["__row__"])).abs().max() == 0
    figures = json.loads((folder / "metrics.json").read_text())
    pair, weights = (rows["label"].to_numpy(), rows["prediction"].to_numpy()), rows["__weight__"].to_numpy()
    known = {"rmse": root_mean_squared_error, "mae": mean_absolute_error, "r2": r2_score}
    for name, metric in known.items():
        assert figures[name] == pytest.approx(metric(*(each.astype(float) for each in pair), sample_weight=weights))
    assert figures["rmse.low"] < figures["rmse"] < figures["rmse.high"]
    page = (folder / "report.html").read_text()
    assert "Predicted and actual" in page and "AUC" not in page and "Mean label by prediction" in page
    assert not (folder / "calibration.json").exists()


def test_raw_rows_get_the_predictions_of_evaluate(runs: Path) -> None:
    raw().drop("w", "price").write_csv(runs / "new.csv")
    do("predict", runs, *MODEL, *of(runs), f"predict.input={runs / 'new.csv'}")
    scores = pl.read_parquet(runs / "small" / "predict" / "scores.parquet")
    assert scores.columns == ["__row__", "town", "prediction"] and scores.height == ROWS
    known = pl.read_parquet(runs / "small" / "evaluate" / "predictions.parquet")
    found = known.join(scores, on="__row__", suffix="_new")
    assert found.height == known.height
    assert ((found["prediction"] - found["prediction_new"]) / found["prediction"]).abs().max() < 1e-6  # type: ignore[operator]


def test_the_bundle_names_its_outputs(runs: Path) -> None:
    bundle = runs / "small" / "export"
    manifest, parity = BundleManifest.read(bundle), Parity.read(bundle)
    known = Manifest.read(next((runs / "data").glob("*-*"))).label
    assert known is not None and manifest.outputs == ("outputs", "predictions")
    assert manifest.lineage["label"] == {"count": known.count, "mean": known.mean, "std": known.std}
    golden = torch.load(bundle / "golden.pt", weights_only=True)
    assert torch.equal(golden["predictions"], (known.mean + known.std * golden["outputs"].double()).float())
    served = torch.jit.load(bundle / "model.pt")(golden["features"])
    torch.testing.assert_close(served[0], golden["outputs"], rtol=0, atol=1e-5)
    torch.testing.assert_close(served[1], golden["predictions"], rtol=1e-6, atol=0)
    table = pl.read_parquet(bundle / "golden.parquet")
    assert (table["prediction"].to_torch() == golden["predictions"]).all() and "probability" not in table.columns
    tested = pl.read_parquet(runs / "small" / "evaluate" / "predictions.parquet")
    assert parity.num_rows == tested.height and parity.trained_auc is None and parity.frozen_log_loss is None
    assert parity.frozen_rmse == pytest.approx(root_mean_squared_error(tested["label"], tested["prediction"]), rel=1e-6)
    int8 = parity.models[1]
    assert int8.rmse is not None and parity.frozen_rmse is not None and int8.rmse_change is not None
    assert int8.rmse_change == pytest.approx(int8.rmse / parity.frozen_rmse - 1, abs=1e-9)
    triton = (bundle / "config.pbtxt").read_text()
    assert '"outputs__0"' in triton and '"predictions__1"' in triton


def test_the_card_speaks_of_a_number_and_its_code_runs(runs: Path) -> None:
    bundle = runs / "small" / "export"
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "# Model of a number" in card and "Returns `(outputs, predictions)`" in card and "RMSE" in card
    assert "probabilit" not in card and "AUC" not in card
    program = card.partition("```python\n")[2].partition("```")[0]
    command = [sys.executable, "-I", "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(50_000 < value < 250_000 for value in json.loads(done.stdout))


def test_a_process_without_this_project_predicts(runs: Path) -> None:
    command = [sys.executable, "-I", "-W", "ignore", str(SCORE), str(runs / "small" / "export")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "row 0: prediction 1" in done.stdout and "the trained model's outputs: " in done.stdout


def test_calibration_is_refused_before_anything_is_trained(runs: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.calibration=platt: this speaks of clicks"):
        do("run", runs, *MODEL, *of(runs), "name=other", "evaluate.calibration=platt")
    assert not (runs / "other" / "train").exists()


def test_two_runs_are_compared_by_rmse(runs: Path) -> None:
    for stage in ("train", "evaluate"):
        do(stage, runs, *MODEL, *of(runs), "name=second", "train.epochs=1")
    do("compare", runs, "compare.runs=[small,second]", "compare.num_replicates=50", "name=c")
    found = json.loads((runs / "compare" / "c" / "compare.json").read_text())
    (difference,) = (each["difference"]["value"] for each in found["overall"] if each["metric"] == "rmse")
    errors = []
    for name in ("small", "second"):
        rows = pl.read_parquet(runs / name / "evaluate" / "predictions.parquet")
        errors.append(root_mean_squared_error(rows["label"], rows["prediction"]))
    assert found["metric"] == "rmse" and "GAUC weights" not in found["facts"]
    assert difference == pytest.approx(errors[1] - errors[0], rel=1e-5)


def test_the_quality_page_speaks_of_mean_labels(runs: Path) -> None:
    run = do("quality", runs, *MODEL, *of(runs), "name=q")
    page = (run.stage("quality") / "quality.html").read_text()
    found = json.loads((run.stage("quality") / "quality.json").read_text())
    assert "Mean label by position" in page and "labels average" in page
    known = Manifest.read(run.stage("ingest")).label
    assert known is not None and found["positive"]["train"] == pytest.approx(known.mean)


@pytest.mark.parametrize("search", ["dnis", "random"])
def test_searches_score_by_r2(runs: Path, search: str) -> None:
    small = (*MODEL, *of(runs), f"search={search}", "search.compression_ratio=2", f"name=by_{search}", "train.epochs=1")
    fewer = ("search.trials=2",) if search == "random" else ()
    run = do("search", runs, *small, *fewer)
    (folder,) = (path.parent for path in run.stage("search").glob("*/frontier.json"))
    assert json.loads((folder / "frontier.json").read_text())["metric"] == "R²"
    assert read_record(folder)


@pytest.mark.slow
def test_the_stars_of_movielens(data_folder: Path, tmp_path: Path) -> None:
    """DeepFM on ratings in random order is better than the mean rating of the film, and the exported file says so."""
    split = ("dataset.split.method=shuffle", "dataset.split.column=")
    given = [f"dataset.{key}={data_folder}/ml-100k/u.{end}.zst" for key, end in FILES.items()]
    small = ("model=deepfm", "model.embedding_dim=8", "model.hidden_units=[32]", "export.num_parity_rows=2000")
    trained = ("train.epochs=4", "train.batch_size=1024", "name=stars")
    do("run", tmp_path, "dataset=ml_100k_ratings", *given, *split, *small, *trained)
    train, test = (pl.read_parquet(next((tmp_path / "data").glob("*-*")) / s / "*.parquet") for s in ("train", "test"))
    films = train.group_by("item").agg(pl.col("__label__").mean().alias("mean"))
    means = test.join(films, on="item", how="left")["mean"].fill_null(train["__label__"].mean())
    figures = json.loads((tmp_path / "stars" / "evaluate" / "metrics.json").read_text())
    assert figures["rmse"] < root_mean_squared_error(test["__label__"], means) - 0.02
    command = [sys.executable, "-I", "-W", "ignore", str(SCORE), str(tmp_path / "stars" / "export")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


FILES = {"ratings": "data", "users": "user", "items": "item"}
