"""`python -m pipelines.evaluate`: the best checkpoint on the test split, as predictions, metrics and a report."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import polars as pl
import torch

from pipelines.config import Run
from pipelines.entry import is_first_rank, launched_by_torchrun, relaunch, stage_main, without_other_ranks
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
from recsys.train.score import Replica, Scorer, score
from recsys.train.session import Session, process_group, shard

SPLIT = "test"


def work(run: Run) -> None:
    """Score the test split on the ranks that trained, and report.

    Where the method serves something else than it trains, one process alone scores it, whatever the number of ranks:
    clustering takes longer than ranks wait for one another. It needs host memory for up to four times the whole tables
    in float32 (checkpoint and model, trained and frozen), beside what is served, and its device for them once.
    """
    data, run_on = run.stage("ingest"), run.config.train.run_on
    check_columns(Manifest.read(data).schema, run.config.evaluate)
    plan = plan_tables(run.config, Manifest.read(data))
    serving = run.config.embedding.serving_plan(plan)
    alone = serving != plan
    if run_on.num_processes > 1 and not alone and not launched_by_torchrun():
        relaunch("pipelines.evaluate", run)
        return
    if alone and not is_first_rank():
        return
    with without_other_ranks() if alone else nullcontext(), process_group(run_on) as device:
        _scored(run, serving, lambda: _replica(run, device) if alone else _sharded(run, device))


def _scored(run: Run, serving: TablePlan, make_scorer: Callable[[], Scorer]) -> None:
    """The stage, on the ranks of this process group; `serving` is the plan of what is served."""
    data, trained = run.stage("ingest"), run.stage("train")
    inputs = {"ingest": fingerprint(data), "train": fingerprint(trained)}
    check_made_with(trained, config=run.trained_with, inputs={"ingest": inputs["ingest"]})
    key = StageKey(stage="evaluate", config=run.part("evaluate", "embedding"), inputs=inputs, resolved=run.values)
    with stage(run.stage("evaluate"), key, overwrite=run.config.overwrite) as folder:
        if folder is not None:
            scorer = make_scorer()
            logits, _ = score(scorer, loaders(run, data)(SPLIT, False), "test")
            if scorer.is_main:
                _report(run, serving, logits, folder)


def _sharded(run: Run, device: torch.device) -> Session:
    """The trained model over the ranks."""
    config = run.config.train
    built = build_model(run.config, Manifest.read(run.stage("ingest")), on_meta=True)
    session = shard(built.model, config.optimizer, config.run_on, device)
    best = run.stage("train") / "checkpoints" / "best"
    checkpoint.read_state(best, built.plan)
    checkpoint.load(best, {"model": session.model.state_dict()})
    return session


def _replica(run: Run, device: torch.device) -> Replica:
    """What is served of the trained model, whole."""
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
