"""`python -m pipelines.evaluate`: the best checkpoint on the test split, as predictions, metrics and a report."""

import json
from pathlib import Path

import polars as pl
import torch

from pipelines.config import Run
from pipelines.entry import launched_by_torchrun, relaunch, stage_main
from pipelines.model import build_model, load_trained, plan_tables
from pipelines.stage import StageKey, check_made_with, fingerprint, read_record, stage
from pipelines.train import loaders
from recsys.core.errors import ConfigError
from recsys.core.manifest import Manifest
from recsys.core.plan import TablePlan
from recsys.core.schema import Schema
from recsys.data.loader import read_split
from recsys.evaluate import EvaluateConfig, evaluate, write
from recsys.train import checkpoint
from recsys.train.score import Replica, score
from recsys.train.session import Session, process_group, shard

SPLIT = "test"


def work(run: Run) -> None:
    """Score the test split on the ranks that trained, and report."""
    run_on = run.config.train.run_on
    if run_on.num_processes > 1 and not launched_by_torchrun():
        relaunch("pipelines.evaluate", run)
        return
    with process_group(run_on) as device:
        data, trained = run.stage("ingest"), run.stage("train")
        check_columns(Manifest.read(data).schema, run.config.evaluate)
        inputs = {"ingest": fingerprint(data), "train": fingerprint(trained)}
        check_made_with(trained, config=run.trained_with, inputs={"ingest": inputs["ingest"]})
        key = StageKey(stage="evaluate", config=run.part("evaluate", "embedding"), inputs=inputs, resolved=run.values)
        with stage(run.stage("evaluate"), key, overwrite=run.config.overwrite) as folder:
            if folder is None:
                return
            plan = plan_tables(run.config, Manifest.read(data))
            frozen = run.config.embedding.serving_plan(plan)
            scorer = _sharded(run, trained, device) if frozen == plan else _replica(run, device)
            logits, _ = score(scorer, loaders(run, data)(SPLIT, False), "test")
            if scorer.is_main:
                _report(run, frozen, logits, folder)


def _sharded(run: Run, trained: Path, device: torch.device) -> Session:
    """The trained model over the ranks."""
    config = run.config.train
    built = build_model(run.config, Manifest.read(run.stage("ingest")), on_meta=True)
    session = shard(built.model, config.optimizer, config.run_on, device)
    best = trained / "checkpoints" / "best"
    checkpoint.read_state(best, built.plan)
    checkpoint.load(best, {"model": session.model.state_dict()})
    return session


def _replica(run: Run, device: torch.device) -> Replica:
    """What is served of the trained model, whole on every rank."""
    return Replica(load_trained(run).frozen_model.to(device), device)


def check_columns(schema: Schema, config: EvaluateConfig) -> None:
    """Refuse to group or slice by a column of which only encoded ids are kept: all unseen values would be one.

    Raises:
        ConfigError: naming the column.
    """
    for key, columns in (("group_key", [config.group_key] if config.group_key else []), ("slices", config.slices)):
        for column in columns:
            if column not in schema.passthrough:
                raise ConfigError(
                    f"evaluate.{key}={column!r}: this column is not kept as it was beside the predictions, and encoded "
                    "ids would put all unseen values into one group. Name it in dataset.passthrough; "
                    f"there are {sorted(schema.passthrough)}."
                )


def _report(run: Run, plan: TablePlan, logits: torch.Tensor, folder: Path) -> None:
    data, config = run.stage("ingest"), run.config.evaluate
    schema = Manifest.read(data).schema
    frame = read_split(data, SPLIT, ["__row__", "__label__", *schema.passthrough])
    predictions = frame.rename({"__label__": "label"}).with_columns(
        pl.Series("logit", logits.numpy()), pl.Series("probability", torch.sigmoid(logits).numpy())
    )
    predictions.write_parquet(folder / "predictions.parquet")
    history = json.loads((run.stage("train") / "history.json").read_text())
    write(evaluate(predictions, config), folder, facts(run, plan), history=history)


def facts(run: Run, plan: TablePlan) -> dict[str, str]:
    """What a reader of the report must know about the run; `plan` is the one that is served."""
    record = read_record(run.stage("train"))
    manifest = Manifest.read(run.stage("ingest"))
    mib = plan.num_bytes / 2**20
    metrics = json.loads((run.stage("train") / "metrics.json").read_text())
    method = run.values["embedding"]["_target_"].rpartition(".")[2].removesuffix("Config")
    return {
        "run": run.config.name,
        "dataset": f"{manifest.dataset}, {manifest.splits[SPLIT].num_rows:,} {SPLIT} rows",
        "model": run.values["model"]["_target_"].rpartition(".")[2].removesuffix("Config"),
        "embedding": f"{method}, {len(plan.tables)} tables, {plan.num_bytes:,} bytes ({mib:.2f} MiB)",
        "dense parameters": f"{metrics['model.dense_parameters']:,}",
        "seed": str(run.config.seed),
        "commit": str(record.get("commit", "")),
        "trained": f"{record['finished_at']}, {record['seconds']:.0f} s",
    }


main = stage_main(work)

if __name__ == "__main__":
    main()
