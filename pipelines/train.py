"""`python -m pipelines.train`, or `torchrun -m pipelines.train`: an ingested data set to a checkpoint."""

import csv
import fcntl
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from pipelines.config import Run
from pipelines.entry import launched_by_torchrun, relaunch, stage_main
from pipelines.model import CHECKPOINTS, PlannedModel, build_model, learned_labels, task_of
from pipelines.predictions import split_files
from pipelines.retrieval_train import train_retrieval
from pipelines.stage import StageKey, fingerprint, stage
from pipelines.tensorboard import TensorBoardCallback
from recsys.core.errors import ConfigError
from recsys.core.labels import label_columns
from recsys.core.manifest import Manifest
from recsys.core.memory import peak_mib
from recsys.core.plan import TablePlan
from recsys.data.fingerprint import file_fingerprint
from recsys.data.loader import LoaderOptions, ParquetLoader
from recsys.embeddings.batch_regularizer import BatchRegularizer
from recsys.embeddings.planned import write_plan
from recsys.embeddings.survey import training_bytes
from recsys.models.ctr import MultiTask, Regularized
from recsys.train.checkpoint import STATE_NAME
from recsys.train.session import Session, process_group, shard
from recsys.train.tables import initialize_tables
from recsys.train.trainer import Progress, Trainer

logger = logging.getLogger(__name__)

WHOLE_CHECKPOINT = f"*/last*/{STATE_NAME}"
MAX_OUTSIDE = 0.01
"""Share of a label's positive rows that may be none of the label before, where a model has it that there are none."""


def work(run: Run) -> None:
    """Train on the ranks that the configuration asks for.

    Raises:
        ConfigError: `from` names another run.
    """
    run.refuse_from()
    run_on = run.config.train.run_on
    if run_on.num_processes > 1 and not launched_by_torchrun():
        relaunch("pipelines.train", run)
        return
    with process_group(run_on) as device:
        data = run.stage("ingest")
        files = {f"embedding:{path}": file_fingerprint(path) for path in run.config.embedding.files()}
        inputs = {"ingest": fingerprint(data), **files}
        key = StageKey(
            stage="train",
            config=trained_from(run),
            inputs=inputs,
            resolved=run.values,
            worth_keeping=WHOLE_CHECKPOINT,
        )
        with stage(run.stage("train"), key, overwrite=run.config.overwrite) as folder:
            if folder is not None and run.config.retrieval is None:
                manifest = Manifest.read(data)
                check_validation(manifest, data)
                check_funnel(run, manifest, data)
                built = build_model(run.config, manifest, on_meta=True)
                session = shard(built.model, run.config.train.optimizer, run_on, device)
                metrics = _train(run, built, session, data, folder)
            elif folder is not None:
                metrics = train_retrieval(run, folder, device)
            if folder is not None and dist.get_rank() == 0:
                (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
                _append_leaderboard(run, metrics)


def check_validation(manifest: Manifest, data: Path) -> None:
    """Refuse before training what would be found after its first epoch.

    Raises:
        ConfigError: labels are clicks, and validation rows are all of one class.
    """
    validation = manifest.splits["validation"]
    if manifest.label is None and validation.num_rows and validation.num_positive in (0, validation.num_rows):
        value = int(validation.num_positive > 0)
        raise ConfigError(
            f"{data}: all {validation.num_rows:,} validation rows have the label {value}, so no epoch has an AUC. Give "
            "the validation split rows of both labels (dataset.split)."
        )


def check_funnel(run: Run, manifest: Manifest, data: Path) -> None:
    """Refuse a model of labels that follow one another where training rows show that they do not.

    A few rows, up to `MAX_OUTSIDE` of the later label's, may be errors of logging: the model learns around them.

    Raises:
        ConfigError: naming the labels that do not, or not in this order.
    """
    labels, model = learned_labels(run.config, manifest.schema), run.config.model
    if not (isinstance(model, MultiTask) and model.labels_nest and len(labels) > 1):
        return
    columns = label_columns(labels)
    later, outside = [0] * len(labels), [0] * len(labels)
    for frame in split_files(data, "train", columns):
        for task in range(1, len(labels)):
            positive = frame[columns[task]] == 1
            later[task] += int(positive.sum())
            outside[task] += int((positive & (frame[columns[task - 1]] == 0)).sum())
    for before, label, positives, alone in zip(labels, labels[1:], later[1:], outside[1:], strict=False):
        if alone > MAX_OUTSIDE * positives:
            raise ConfigError(
                f"label {label!r} is 1 on {alone:,} training rows where {before!r}, which comes before it, is 0, of "
                f"{positives:,} where it is 1: {type(model).__name__} multiplies probabilities along "
                f"{list(labels)}. Order dataset.label and other_labels from the first event to the last, or take "
                "model=mmoe, ple or shared_bottom."
            )


def trained_from(run: Run) -> dict[str, Any]:
    """Options that a training depends on."""
    return run.part(run.kind, "embedding", "train", "seed")


def loaders(run: Run, data: Path) -> Callable[[str, bool], ParquetLoader]:
    """A maker of loaders: `(split, shuffle)` to this rank's batches."""
    train, num_labels = run.config.train, len(learned_labels(run.config, Manifest.read(data).schema))

    def loader(split: str, shuffle: bool) -> ParquetLoader:
        options = LoaderOptions(
            batch_size=train.batch_size if shuffle else train.eval_batch_size,
            shuffle=shuffle,
            seed=run.config.seed,
            shuffle_rows=train.shuffle_rows,
            drop_last=False,
            pin_memory=train.run_on.device == "cuda",
            num_labels=num_labels,
        )
        return ParquetLoader(data, split, options, rank=dist.get_rank(), world_size=dist.get_world_size())

    return loader


def _train(run: Run, built: PlannedModel, session: Session, data: Path, folder: Path) -> dict[str, float]:
    serving = run.config.embedding.serving_plan(built.plan)
    if session.is_main:
        logger.info("embedding plan:\n%s", built.plan)
        if serving != built.plan:
            logger.info("served as:\n%s", serving)
        write_plan(folder, built.plan, run.values["embedding"])
    initialize_tables(session.model.state_dict(), built.plan, seed=run.config.seed)
    callbacks = [TensorBoardCallback(folder / "tensorboard"), *run.config.embedding.callbacks(built.plan)]
    if isinstance(run.config.model, Regularized) and run.config.model.batch_regularizer:
        callbacks.append(BatchRegularizer(run.config.model.batch_regularizer, built.plan))
    trainer = Trainer(session, built.plan, run.config.train, folder / CHECKPOINTS, callbacks)
    trainer.task = task_of(run.config, Manifest.read(data))
    loader = loaders(run, data)
    progress = trainer.run(loader("train", True), loader("validation", False), seed=run.config.seed)
    if session.is_main:
        (folder / "history.json").write_text(json.dumps(progress.history, indent=1))
    return _metrics(progress, built, serving)


def _metrics(progress: Progress, built: PlannedModel, serving: TablePlan) -> dict[str, float]:
    best = next(record for record in progress.history if record["epoch"] == progress.best_epoch)
    return {
        **{key.replace("_", ".", 1): value for key, value in best.items() if key.startswith("validation_")},
        "train.best_epoch": progress.best_epoch,
        "train.epochs": progress.epoch,
        "train.steps": progress.step,
        "train.seconds": round(progress.total_seconds, 3),
        "train.rows_per_second": round(progress.rows / max(progress.seconds, 1e-9), 1),
        "train.peak_rss_mib": round(peak_mib(), 1),
        "plan.bytes": serving.num_bytes,
        "plan.training_bytes": training_bytes(built.plan),
        "model.dense_parameters": built.num_dense_parameters,
    }


def _append_leaderboard(run: Run, metrics: dict[str, float]) -> None:
    """Add this run's row to `leaderboard.csv` of all runs."""
    values = run.values
    row: dict[str, Any] = {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "name": run.config.name,
        "data": run.stage("ingest").name,
        "model": (values.get("retrieval") or values)["model"]["_target_"].rpartition(".")[2].removesuffix("Config"),
        "embedding": values["embedding"]["_target_"].rpartition(".")[2].removesuffix("Config"),
        "seed": run.config.seed,
        **metrics,
    }
    path = Path(run.config.runs) / "leaderboard.csv"
    with path.open("a+", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # jobs of a sweep may end together
        file.seek(0)
        lines = file.read().splitlines()
        header = next((line for line in reversed(lines) if line.startswith("finished,")), "")
        writer = csv.DictWriter(file, fieldnames=list(row))
        if header != ",".join(row):  # none yet, or one of another version: a new header speaks for the rows below it
            writer.writeheader()
        writer.writerow(row)


main = stage_main(work)

if __name__ == "__main__":
    main()
