"""Evaluation of a retrieval run: what is served, ranked over all items for every test user."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from pipelines.config import Run
from pipelines.retrieval_model import KNOWN, load_served, retrieval_of, trained_splits
from pipelines.stage import StageKey, check_made_with, fingerprint, read_record, stage
from recsys.core.errors import StageError
from recsys.core.manifest import Manifest
from recsys.core.plan import TablePlan
from recsys.data.interactions import read_interactions, relevant_pairs
from recsys.evaluate.ranking_report import RankingEvaluation, write_ranking
from recsys.export.retrieval_manifest import RetrievalQuality
from recsys.retrieval.encoder import FittedConfig
from recsys.retrieval.ranking import Ranking, Relevant, judge, rank

logger = logging.getLogger(__name__)

LISTS_NAME, METRICS_NAME = "lists.parquet", "metrics.json"


def evaluate_retrieval(run: Run) -> None:
    """Rank on the CPU of one process, whatever the number of ranks that trained."""
    data, trained = run.stage("ingest"), run.stage("train")
    inputs = {"ingest": fingerprint(data), "train": fingerprint(trained)}
    check_made_with(trained, config=run.trained_with, inputs={"ingest": inputs["ingest"]})
    asked = run.part("embedding") | {"top_k": run.values["retrieval"]["top_k"]}
    key = StageKey(stage="evaluate", config=asked, inputs=inputs, resolved=run.values)
    with stage(run.stage("evaluate"), key, overwrite=run.config.overwrite) as folder:
        if folder is None:
            return
        _evaluate(run, folder)


def _evaluate(run: Run, folder: Path) -> None:
    data = run.stage("ingest")
    recommender, plan = load_served(run)
    config, history = retrieval_of(run), read_interactions(data, KNOWN)
    relevant = Relevant.of(*relevant_pairs(data, "test"), history)
    if max(config.top_k) >= history.num_items - 1:
        logger.warning(
            "retrieval.top_k=%s of %d items: lists that hold every item have all recall there is, whatever the model",
            list(config.top_k),
            history.num_items - 1,
        )
    started = time.monotonic()
    lists = rank(
        recommender, relevant.users, history, k=max(config.top_k), users_at_once=config.users_at_once, title="ranking"
    )
    seconds = time.monotonic() - started
    found = judge(lists, relevant, ks=config.top_k, num_shown=history.num_items - 1)
    evaluation = RankingEvaluation(
        values=found.values,
        coverage=found.coverage,
        num_relevant=relevant.counts[lists.users],
        num_history=history.user_degrees[lists.users],
        num_cold_pairs=relevant.num_cold_pairs,
        num_unknown_items=relevant.num_unknown_items,
        history=json.loads((run.stage("train") / "history.json").read_text()),
    )
    write_ranking(evaluation, folder, _facts(run, plan, seconds))
    _write_lists(lists, folder / LISTS_NAME)


def _write_lists(lists: Ranking, path: Path) -> None:
    """Every user's list, for comparisons of runs: ids, best first; 0 is an empty place."""
    items = pl.Series("items", lists.items.numpy())
    pl.DataFrame({"user": lists.users.numpy(), "items": items}).write_parquet(path, compression="zstd")


def selected_on(run: Run, manifest: Manifest) -> str:
    """What chose the epoch."""
    if isinstance(retrieval_of(run).model, FittedConfig):
        return "nothing (it is fitted, not trained)"
    return "validation" if manifest.splits["validation"].num_rows else "nothing (no validation split)"


def quality_of(run: Run, inputs: Mapping[str, str]) -> RetrievalQuality | None:
    """What evaluation measured of the model of these inputs; None where it has not yet."""
    folder, manifest = run.stage("evaluate"), Manifest.read(run.stage("ingest"))
    try:
        check_made_with(folder, config=run.part("embedding"), inputs=inputs)
    except StageError:
        return None
    found = json.loads((folder / METRICS_NAME).read_text())
    return RetrievalQuality(
        split="test",
        num_users=found["num_users"],
        num_pairs=found["num_pairs"],
        selected_on=selected_on(run, manifest),
        metrics={key: value for key, value in found.items() if "_at_" in key and isinstance(value, float)},
    )


def _facts(run: Run, plan: TablePlan | None, seconds: float) -> dict[str, str | int | float]:
    record, manifest = read_record(run.stage("train")), Manifest.read(run.stage("ingest"))
    values = run.values["retrieval"]
    kind = {
        part: values[part]["_target_"].rpartition(".")[2].removesuffix("Config")
        for part in ("model", "loss")
        if part in values  # what nothing trains has no loss
    }
    trained: dict[str, str | int | float] = {
        "model": kind["model"],
        "dataset": manifest.dataset,
        "run": run.config.name,
    }
    if plan is not None:
        method = run.values["embedding"]["_target_"].rpartition(".")[2].removesuffix("Config")
        trained |= {"loss": kind["loss"], "embedding": method, "embedding_bytes": plan.num_bytes}
    metrics = json.loads((run.stage("train") / "metrics.json").read_text())
    on_test = {key.partition(".")[2]: value for key, value in metrics.items() if key.startswith("selected_on_test.")}
    if on_test:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in on_test.items())
        trained["best epoch by test, as most publications select; not this model"] = figures
    return trained | {
        "learned from": " and ".join(trained_splits(run)),
        "selected on": selected_on(run, manifest),
        "seed": str(run.config.seed),
        "commit": str(record.get("commit", "")),
        "trained": f"{record['finished_at']}, {record['seconds']:.0f} s",
        "ranking": f"{seconds:.1f} s",
    }
