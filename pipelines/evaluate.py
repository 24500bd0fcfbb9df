"""`python -m pipelines.evaluate`: the best checkpoint on the test split, as predictions, metrics and a report."""

import json
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch

from pipelines.config import Run
from pipelines.entry import is_first_rank, launched_by_torchrun, relaunch, stage_main, without_other_ranks
from pipelines.model import build_model, learned_labels, load_trained, plan_tables
from pipelines.predictions import PREDICTIONS_NAME, of_label, split_files, write_predictions
from pipelines.retrieval_evaluate import evaluate_retrieval
from pipelines.stage import StageKey, check_made_with, fingerprint, read_record, stage
from pipelines.train import loaders
from recsys.core.errors import ConfigError, DataError
from recsys.core.labels import LabelKind
from recsys.core.manifest import Manifest
from recsys.core.plan import TablePlan
from recsys.core.schema import Schema
from recsys.embeddings.collisions import collisions
from recsys.evaluate import (
    Calibration,
    EvaluateConfig,
    FittedCalibration,
    Predictions,
    check_number_options,
    evaluate,
    evaluate_numbers,
    write,
    write_numbers,
)
from recsys.evaluate.data_checks import check_data
from recsys.evaluate.frequency import FrequencyClasses, check_feature
from recsys.evaluate.statistics import merged_counts
from recsys.metrics import MetricValue, ScoreCounts
from recsys.train import checkpoint
from recsys.train.score import Replica, Scorer, score_in_parts
from recsys.train.session import Session, process_group, shard

logger = logging.getLogger(__name__)

SPLIT, VALIDATION = "test", "validation"
CALIBRATION_NAME = "calibration.json"
COUNTED_IDS = 2**16
"""Ids of a column up to which each is looked at to count collisions; of more, some of every octave of frequency."""


def work(run: Run) -> None:
    """Score the test split on the ranks that trained, and report.

    Where the method serves something else than it trains, one process alone scores it, whatever the number of ranks:
    clustering takes longer than ranks wait for one another. It needs host memory for up to four times the whole tables
    in float32 (checkpoint and model, trained and frozen), beside what is served, and its device for them once.
    """
    if run.config.retrieval is not None:
        evaluate_retrieval(run)
        return
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
            scorer, manifest = make_scorer(), Manifest.read(data)
            labels = learned_labels(run.config, manifest.schema)
            calibrations = _calibrations(run, scorer, labels)
            logits = (part.logits for part in score_in_parts(scorer, loaders(run, data)(SPLIT, False), SPLIT))
            folders = [of_label(folder, labels, label) for label in labels]
            if scorer.is_main:
                classes = [FrequencyClasses.of(manifest, feature) for feature in run.config.evaluate.frequency_slices]
                write_predictions(data, SPLIT, logits, folders, classes)
            deque(logits, maxlen=0)  # the other ranks score their share; the main one comes to the end here
            if scorer.is_main:
                for label, own, calibration in zip(labels, folders, calibrations, strict=True):
                    if len(labels) > 1:
                        logger.info("label %s:", label)
                    _report(run, serving, own, calibration, label=label)


def _calibrations(run: Run, scorer: Scorer, labels: Sequence[str]) -> list[FittedCalibration | None]:
    """The maps that the configuration asks for, one a label, fitted on the validation split, which is scored once."""
    kind = run.config.evaluate.calibration
    if kind is Calibration.NONE:
        return [None] * len(labels)
    validation = loaders(run, run.stage("ingest"))(VALIDATION, False)
    scored = ([part.of(task) for task in range(len(labels))] for part in score_in_parts(scorer, validation, VALIDATION))
    counted = merged_counts(
        [ScoreCounts.from_rows(own.labels, own.logits, own.weights) for own in part] for part in scored
    )
    return [_fitted(kind, counts, label) for counts, label in zip(counted, labels, strict=True)]


def _fitted(kind: Calibration, counts: ScoreCounts, label: str) -> FittedCalibration:
    try:
        return FittedCalibration.fit(kind, counts, split=VALIDATION)
    except DataError as error:
        raise DataError(f"label {label!r} of the {VALIDATION} rows: {error}") from error


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
        ConfigError: naming the column; or an option speaks of clicks, and labels are numbers.
    """
    if schema.label_kind is LabelKind.NUMBER:
        check_number_options(config)
    for feature in config.frequency_slices:
        check_feature(schema, feature)
    for key, columns in config.columns.items():
        for column in columns:
            if column not in schema.passthrough:
                raise ConfigError(
                    f"evaluate.{key}={column!r}: this column is not kept as it was beside the predictions, and encoded "
                    "ids would put all unseen values into one group. Name it in dataset.passthrough; "
                    f"there are {sorted(schema.passthrough)}."
                )


def _report(run: Run, plan: TablePlan, folder: Path, calibration: FittedCalibration | None, *, label: str) -> None:
    """The page and figures of one of the labels; the data are checked with the main one."""
    data, config = run.stage("ingest"), run.config.evaluate
    checks, manifest = None, Manifest.read(data)
    if config.data_checks and label == manifest.schema.label:
        colliding = colliding_shares(plan_tables(run.config, manifest), manifest)
        read = partial(split_files, data)
        checks = check_data(manifest, read, config, colliding=colliding)
    if calibration is not None:
        (folder / CALIBRATION_NAME).write_text(json.dumps(calibration.to_json(), indent=1))
    predictions, known = Predictions.read(folder / PREDICTIONS_NAME), facts(run, plan, label)
    history = _of_label(json.loads((run.stage("train") / "history.json").read_text()), manifest.schema, label)
    if manifest.label is not None:
        write_numbers(evaluate_numbers(predictions, config), folder, known, history=history, checks=checks)
        return
    evaluation = evaluate(predictions, config, calibration=calibration)
    write(evaluation, folder, known, history=history, checks=checks)


def _of_label(history: list[dict[str, float]], schema: Schema, label: str) -> list[dict[str, float]]:
    """What training said of one of the labels after each epoch, called as it is of the main one."""
    if label == schema.label:
        return history
    names = {f"{key}_{label}": key for key in ("validation_auc", "validation_log_loss")} | {"epoch": "epoch"}
    return [{names[key]: value for key, value in record.items() if key in names} for record in history]


def colliding_shares(plan: TablePlan, manifest: Manifest) -> dict[str, MetricValue]:
    """Share of training look-ups whose rows are all another id's too, by column.

    Args:
        plan: as trained.
        manifest: of the data.
    Returns:
        Of a column that several features read, what the one with the fewest collisions cannot tell apart.
    """
    found = collisions(plan, max_ids=COUNTED_IDS, oov_counts={n: c.oov_count for n, c in manifest.categorical.items()})
    shares: dict[str, MetricValue] = {}
    for entry in plan.features:
        share = found[entry.feature.name].same_feature
        reason = "its embedding is computed from the id, and no row is looked up"
        value = MetricValue.undefined(reason) if share is None else MetricValue.of(share)
        for read in entry.feature.reads:
            known = shares.get(read.source, value)
            # An embedding that reads no row tells all ids apart, whatever collides beside it.
            shares[read.source] = min(known, value, key=lambda each: each.value_or(-1.0))
    return shares


def facts(run: Run, plan: TablePlan, label: str) -> dict[str, str]:
    """What a reader of the report on a label must know about the run; `plan` is the one that is served."""
    record = read_record(run.stage("train"))
    manifest = Manifest.read(run.stage("ingest"))
    mib, labels = plan.num_bytes / 2**20, learned_labels(run.config, manifest.schema)
    metrics = json.loads((run.stage("train") / "metrics.json").read_text())
    method = run.values["embedding"]["_target_"].rpartition(".")[2].removesuffix("Config")
    return {
        "run": run.config.name,
        "dataset": f"{manifest.dataset}, {manifest.splits[SPLIT].num_rows:,} {SPLIT} rows",
        **({"label": f"{label}, one of {len(labels)} that are learned"} if len(labels) > 1 else {}),
        **({"rows count by": f"column {manifest.schema.weight!r}"} if manifest.schema.weight else {}),
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
