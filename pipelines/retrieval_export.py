"""Export of a retrieval run: one TorchScript file, raw keys in and out, proven in a process that has torch alone."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from pipelines.config import Run
from pipelines.retrieval_model import KNOWN, load_served
from pipelines.stage import StageKey, check_made_with, fingerprint, read_record, stage
from recsys.core.errors import ParityError
from recsys.core.interactions import Interactions
from recsys.core.manifest import Manifest
from recsys.core.schema import LENGTHS_SUFFIX, MISSING_KEY, Schema
from recsys.data.encoder import FeatureEncoder, vocabulary_path
from recsys.data.interactions import read_interactions, sizes
from recsys.export.fresh_process import check_in_fresh_process
from recsys.export.manifest import file_sha256
from recsys.export.script import load_scripted, script_model
from recsys.export.serving_recommender import ServingRecommender
from recsys.ops.top_k import hide, top_k
from recsys.retrieval.recommender import DotRecommender, Recommender

logger = logging.getLogger(__name__)

MODEL_NAME, ITEMS_NAME, MANIFEST_NAME, GOLDEN_NAME = "model.pt", "items.parquet", "manifest.json", "golden.pt"
MAX_HISTORY = 100_000
"""Items of a given history that are read: all that anybody has."""
PLACES = 20


def export_retrieval(run: Run) -> None:
    """Script, compare with eager, reload in a fresh process; the bundle appears only if all of that held."""
    data, trained = run.stage("ingest"), run.stage("train")
    inputs = {"ingest": fingerprint(data), "train": fingerprint(trained)}
    check_made_with(trained, config=run.trained_with, inputs={"ingest": inputs["ingest"]})
    key = StageKey(stage="export", config=run.part("export", "embedding"), inputs=inputs, resolved=run.values)
    with stage(run.stage("export"), key, overwrite=run.config.overwrite) as folder:
        if folder is None:
            return
        recommender, plan = load_served(run)
        met = read_interactions(data, KNOWN)
        keys = _keys(data)
        serving, columns = _serving(data, recommender.eval(), met, keys), _columns(data)
        script_model(serving).save(folder / MODEL_NAME)
        num_rows = min(run.config.export.num_golden_rows, met.num_users - 1)
        features = _golden_features(columns, keys, met, num_rows)
        outputs = _check_parity(folder / MODEL_NAME, recommender, met, keys, features)
        check_in_fresh_process(folder / MODEL_NAME, features, outputs)
        torch.save({"features": features, "items": outputs[0], "scores": outputs[1]}, folder / GOLDEN_NAME)
        _write_items(folder / ITEMS_NAME, data, columns[1], recommender)
        described = {
            "inputs": {columns[0]: "int64 (B,)", columns[1]: "int64 (H,)", columns[1] + LENGTHS_SUFFIX: "int64 (B,)"},
            "outputs": {"items": "int64 (B, K), raw keys", "scores": "float32 (B, K)"},
            "model": {"file": MODEL_NAME, "sha256": file_sha256(folder / MODEL_NAME)},
            "plan_bytes": 0 if plan is None else plan.num_bytes,
            "recommender": type(recommender).__name__,
            "lineage": {"run": run.config.name, "inputs": inputs, "train": read_record(trained)},
        }
        (folder / MANIFEST_NAME).write_text(json.dumps(described, indent=1))
        logger.info("%s: %d bytes", MODEL_NAME, (folder / MODEL_NAME).stat().st_size)


def _columns(data: Path) -> tuple[str, str]:
    user, item = (column.name for column in Manifest.read(data).schema.categorical)
    return user, item


def _keys(data: Path) -> dict[str, Tensor]:
    """Raw key of each id by column, int64; that of id 0 is `MISSING_KEY`."""
    found = {}
    for name in _columns(data):
        keys = pl.read_parquet(vocabulary_path(data, name))["key"].to_torch()
        found[name] = torch.cat([torch.tensor([MISSING_KEY]), keys])
    return found


def _serving(data: Path, recommender: Recommender, met: Interactions, keys: dict[str, Tensor]) -> ServingRecommender:
    manifest = Manifest.read(data)
    sizes(manifest)
    user, item = manifest.schema.categorical
    history = replace(item, multi_valued=True, max_length=MAX_HISTORY)
    schema = Schema(label=manifest.schema.label, categorical=(user, history))
    encoder = FeatureEncoder(schema, {}, {name: k[1:] for name, k in keys.items()}, {})
    return ServingRecommender(recommender, encoder, columns=(user.name, item.name), item_keys=keys[item.name], met=met)


def _golden_features(
    columns: tuple[str, str], keys: dict[str, Tensor], met: Interactions, num_rows: int
) -> dict[str, Tensor]:
    """Known users with nothing given, then new users with the histories of the same ones."""
    user, item = columns
    users = torch.arange(1, num_rows + 1)
    items, offsets = met.of_users(users)
    new = torch.full_like(users, MISSING_KEY)
    return {
        user: torch.cat([keys[user][users], new]),
        item: keys[item][items],
        item + LENGTHS_SUFFIX: torch.cat([torch.zeros_like(users), offsets.diff()]),
    }


@torch.no_grad()
def _check_parity(
    path: Path, recommender: Recommender, met: Interactions, keys: dict[str, Tensor], features: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """What the file lists, which must be what the recommender lists here.

    Raises:
        ParityError: it is not.
    """
    users = torch.arange(1, len(next(iter(features.values()))) // 2 + 1)
    items, offsets = met.of_users(users)
    lists = []
    for ids in (users, torch.zeros_like(users)):
        lists.append(top_k(hide(recommender(ids, items, offsets), items, offsets), PLACES))
    best, scores = (torch.cat(part) for part in zip(*lists, strict=True))
    expected = list(keys.values())[1][best]
    found: tuple[Tensor, Tensor] = load_scripted(path)(features)
    error = float((found[1] - scores).abs().nan_to_num().max())
    if error > 1e-5 * max(float(scores[scores.isfinite()].abs().max()), 1.0):
        raise ParityError(f"{path.name}: scores differ by {error:.3g} from the recommender's. Do not serve it.")
    different = int((found[0] != expected).sum())
    logger.info("parity: %d lists, largest error %.3g, %d places differ", len(best), error, different)
    return found


def _write_items(path: Path, data: Path, item: str, recommender: Recommender) -> None:
    """Keys, ids and training counts of all items, with their vectors where scores are dot products."""
    frame = pl.read_parquet(vocabulary_path(data, item)).with_row_index("id", offset=1)
    if isinstance(recommender, DotRecommender):
        frame = frame.with_columns(pl.Series("vector", recommender.items[1:].numpy()))
    frame.write_parquet(path, compression="zstd")
