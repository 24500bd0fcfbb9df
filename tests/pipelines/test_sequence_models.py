"""Models that read histories, from generated events to the exported file, on one rank and on two."""

import json
from pathlib import Path

import polars as pl
import pytest

from pipelines.model import plan_tables
from recsys.core.component import load_class
from recsys.core.manifest import Manifest
from tests.contract.test_models import FILES, read
from tests.models.world import SEQUENTIAL
from tests.pipelines.world import call, do, make_run

NAMES = [file.stem for file in FILES if load_class(read(file)["_target_"]) in SEQUENTIAL]
OPTIONS = (
    "dataset=planted_interests",
    "dataset.num_rows=1500",
    "dataset.num_users=100",
    "dataset.max_length=8",
    "model.embedding_dim=4",
    "model.hidden_units=[8]",
    "train.epochs=1",
    "train.batch_size=128",
    "train.optimizer.table_learning_rate=1",
    "train.run_on.num_threads=1",
    "export.num_parity_rows=150",
    "export.num_golden_rows=50",
    "name=small",
)
WITHOUT_BATCH_MOMENTS = (
    "model.attention_activation=RELU",
    "model.activation=RELU",
    "model.batch_norm=false",
    "model.attention_dropout=0",
    "model.dropout=0",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sequences") / "runs"


def test_there_are_such_models() -> None:
    assert {"din", "dare", "twin"} <= set(NAMES)


@pytest.mark.parametrize("model", NAMES)
def test_exported_file_scores_raw_rows_as_training_does(model: str, runs: Path) -> None:
    options = (*OPTIONS, f"model={model}", f"name={model}")
    run = do("run", runs, *options)
    float32, *_ = json.loads((run.stage("export") / "parity.json").read_text())["models"]
    assert float32["max_abs_logit_difference"] < 1e-4
    rows = run.stage("ingest") / "raw_sample.parquet"
    scores = do("predict", runs, *options, f"predict.input={rows}").stage("predict") / "scores.parquet"
    logits = pl.read_parquet(scores)["logit"]
    assert logits.is_finite().all() and logits.std() > 0.05  # type: ignore[operator]  # of rows that are no longer tiny


def test_attention_alone_may_be_compressed(runs: Path) -> None:
    hashed = "{_target_: recsys.embeddings.hash.HashConfig, compression_ratio: 10}"
    names = "[item__attention, category__attention]"
    options = (
        *OPTIONS,
        "model=dare",
        "embedding=mixed",
        f"embedding.assignments=[{{features: {names}, method: {hashed}}}]",
    )
    run = do("ingest", runs, *options)
    manifest = Manifest.read(run.stage("ingest"))
    num_ids = {spec.name: spec.num_embeddings or 0 for spec in manifest.feature_specs()}
    plan = plan_tables(run.config, manifest)
    rows = {entry.feature.name: plan.table(entry.tables[0]).num_embeddings for entry in plan.features}
    for name in ("item", "category"):
        assert rows[f"{name}__attention"] <= num_ids[name] / 5 and rows[f"{name}__representation"] == num_ids[name]


def test_two_ranks_learn_what_one_does(runs: Path) -> None:
    regularized = "model.batch_regularizer=100"  # so that an id counted once on each rank would be seen
    options = (*OPTIONS, "model=din", *WITHOUT_BATCH_MOMENTS, regularized, "train.run_on.sharding=row_wise")
    do("ingest", runs, *options)
    do("train", runs, *options, "name=one")
    result = call("train", runs, *options, "name=two", "train.run_on.num_processes=2")
    assert result.returncode == 0, result.stderr[-3000:]
    one, two = (
        json.loads((make_run(runs, *options, f"name={name}").stage("train") / "history.json").read_text())[0]
        for name in ("one", "two")
    )
    for figure in ("validation_auc", "validation_log_loss"):
        assert two[figure] == pytest.approx(one[figure], abs=1e-5)
