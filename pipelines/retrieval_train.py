"""Training of a retrieval run: choose the epoch on validation, then, if asked for, train anew on all that is known."""

import json
import logging
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from pipelines.config import Run
from pipelines.model import CHECKPOINTS
from pipelines.retrieval_callbacks import retrieval_callbacks
from pipelines.retrieval_model import (
    KNOWN,
    RECOMMENDER_NAME,
    TRAIN,
    build_nodes,
    interactions_at,
    plan_nodes,
    retrieval_of,
)
from pipelines.tensorboard import TensorBoardCallback
from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.core.manifest import Manifest
from recsys.core.memory import peak_mib
from recsys.core.plan import TablePlan
from recsys.data.interactions import relevant_pairs
from recsys.embeddings.planned import write_plan
from recsys.embeddings.survey import training_bytes
from recsys.retrieval.config import RetrievalConfig
from recsys.retrieval.encoder import FittedConfig
from recsys.retrieval.ranking import Relevant
from recsys.retrieval.recommender import save_recommender
from recsys.retrieval.task import RetrievalTask, Validation, choose_validation
from recsys.retrieval.triples import TripleSource
from recsys.train.session import shard
from recsys.train.tables import initialize_tables
from recsys.train.trainer import Progress, Trainer

logger = logging.getLogger(__name__)

SELECTION = "selection"
"""Folder of the checkpoints that choose the number of epochs, where the served model is then trained anew."""


def train_retrieval(run: Run, folder: Path, device: torch.device) -> dict[str, float]:
    """Train or fit into a stage's folder, on all ranks of the process group; return the metrics to keep."""
    started = time.monotonic()
    plan = plan_nodes(run, Manifest.read(run.stage("ingest")))
    if plan is None:
        return _fit(run, folder, device, started)
    main = dist.get_rank() == 0
    if main:
        logger.info("embedding plan:\n%s", plan)
        write_plan(folder, plan, run.values["embedding"])
        if retrieval_of(run).without_effect:
            logger.warning("%s", retrieval_of(run).without_effect)
    config = retrieval_of(run)
    graph = interactions_at(run, TRAIN, device)
    relevant = _relevant(run, "validation", graph)
    validation = None
    if len(relevant.keys):
        _check_monitored(config, graph)
        validation = choose_validation(relevant, config.num_validation_users, run.config.seed)
    chosen = _train(
        run, plan, folder / (SELECTION if config.refit else CHECKPOINTS), validation, run.config.train.epochs
    )
    progress = chosen
    if config.refit:
        logger.info("training anew on all that is known, for %d epochs", chosen.best_epoch)
        progress = _train(run, plan, folder / CHECKPOINTS, None, chosen.best_epoch)
    if main:
        (folder / "history.json").write_text(json.dumps(chosen.history, indent=1))
    return _metrics(run, plan, chosen, progress)


def _check_monitored(config: RetrievalConfig, graph: Interactions) -> None:
    """Refuse to choose an epoch by lists that hold every item, which all epochs find alike.

    Raises:
        ConfigError: there are no more items than places.
    """
    if config.monitor_k >= graph.num_items - 1:
        raise ConfigError(
            f"retrieval.monitor_k={config.monitor_k} of {graph.num_items - 1} items: lists of so many hold every item, "
            "so their recall tells no epoch from another. Set it lower, or dataset.validation=0 to train all epochs."
        )


def _relevant(run: Run, split: str, history: Interactions) -> Relevant:
    device = history.users.device
    users, items = (part.to(device) for part in relevant_pairs(run.stage("ingest"), split))
    return Relevant.of(users, items, history)


def _train(run: Run, plan: TablePlan, folder: Path, validation: Validation | None, epochs: int) -> Progress:
    """Train one model from its initial weights; on train alone where something validates it."""
    trainer, source = prepared(run, plan, folder, validation, epochs)
    return trainer.run(source, source, seed=run.config.seed)  # the task has the pairs that validate


def prepared(
    run: Run, plan: TablePlan, folder: Path, validation: Validation | None, epochs: int
) -> tuple[Trainer, TripleSource]:
    """A trainer at its initial weights and the batches for it; needs a process group."""
    config, train = retrieval_of(run), run.config.train
    device = torch.device(train.run_on.device)
    graph = interactions_at(run, TRAIN if validation is not None else KNOWN, device)
    built = build_nodes(run, plan, graph, device)
    session = shard(built.model, train.optimizer, train.run_on, device)
    initialize_tables(session.model.state_dict(), plan, seed=run.config.seed)
    callbacks = [
        TensorBoardCallback(folder.parent / "tensorboard" / folder.name),
        *retrieval_callbacks(run, built, graph),
    ]
    schedule = replace(train, epochs=epochs, plateau=train.plateau if validation is not None else None)
    trainer = Trainer(session, plan, schedule, folder, callbacks)
    watched = None
    if validation is None and config.watch_test:
        watched = choose_validation(_relevant(run, "test", graph), 0, run.config.seed)
    trainer.task = RetrievalTask(config, graph, built.nodes, validation, watched)
    source = TripleSource(
        graph,
        config.sampler,
        batch_size=train.batch_size,
        num_negatives=config.sampler.num_negatives if config.loss.needs_negatives else 0,
        seed=run.config.seed,
    )
    return trainer, source


def _fit(run: Run, folder: Path, device: torch.device, started: float) -> dict[str, float]:
    model = retrieval_of(run).model
    assert isinstance(model, FittedConfig)
    recommender = model.fit(interactions_at(run, KNOWN, device))
    tensors = [*recommender.buffers()]
    if dist.get_rank() == 0:
        save_recommender(recommender.cpu(), folder / RECOMMENDER_NAME)
        (folder / "history.json").write_text("[]")
    return {
        "train.seconds": round(time.monotonic() - started, 3),
        "train.peak_rss_mib": round(peak_mib(), 1),
        "model.bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    }


def _metrics(run: Run, plan: TablePlan, chosen: Progress, progress: Progress) -> dict[str, float]:
    best = next(record for record in chosen.history if record["epoch"] == chosen.best_epoch)
    seconds = progress.total_seconds + (chosen.total_seconds if progress is not chosen else 0)
    return {
        **{key.replace("_", ".", 1): value for key, value in best.items() if key.startswith("validation_")},
        **_selected_on_test(progress),
        "train.best_epoch": chosen.best_epoch,
        "train.epochs": chosen.epoch,
        "train.steps": progress.step,
        "train.seconds": round(seconds, 3),
        "train.rows_per_second": round(progress.rows / max(progress.seconds, 1e-9), 1),
        "train.peak_rss_mib": round(peak_mib(), 1),
        "plan.bytes": run.config.embedding.serving_plan(plan).num_bytes,
        "plan.training_bytes": training_bytes(plan),
    }


def _selected_on_test(progress: Progress) -> dict[str, float]:
    """Figures of the epoch that is best on test, if it was watched."""
    names = [key for key in progress.history[0] if key.startswith("test_")]
    if not names:
        return {}
    best = max(progress.history, key=lambda record: record[names[0]])
    return {f"selected_on_test.{name.removeprefix('test_')}": best[name] for name in names} | {
        "selected_on_test.epoch": best["epoch"]
    }
