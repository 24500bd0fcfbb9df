"""Export of a retrieval run: one TorchScript file, raw keys in and out, proven in a process that has torch alone."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from pipelines.config import Run
from pipelines.narrow_dots import NarrowDots
from pipelines.retrieval_evaluate import quality_of
from pipelines.retrieval_model import KNOWN, load_served, retrieval_of
from pipelines.retrieval_parity import PLACES, Reference, Served, require
from pipelines.stage import StageKey, check_made_with, fingerprint, read_record, stage
from recsys.core.manifest import Manifest
from recsys.core.names import LENGTHS_SUFFIX
from recsys.core.schema import MISSING_KEY, KeyType, Schema
from recsys.core.specs import RowType
from recsys.data.encoder import FeatureEncoder, vocabulary_path
from recsys.data.interactions import read_interactions, sizes
from recsys.data.made import RAW_FOLDER
from recsys.data.raw import string_keys
from recsys.export.border import TensorType, border_tensors
from recsys.export.bundle import GOLDEN_TENSORS_NAME, installed_versions, model_file_name, module_bytes
from recsys.export.card import CARD_NAME
from recsys.export.config import ExportConfig
from recsys.export.fresh_process import check_in_fresh_process
from recsys.export.index_config import IndexKind, IndexReport
from recsys.export.item_index import write_index
from recsys.export.manifest import file_sha256
from recsys.export.retrieval_card import retrieval_card
from recsys.export.retrieval_manifest import FORMAT_VERSION, ITEMS_NAME, ListModel, RetrievalManifest
from recsys.export.script import load_scripted, script_model, write_scripted
from recsys.export.serving_recommender import ServingRecommender, ServingVectors
from recsys.export.triton import TRITON_NAME, triton_config
from recsys.retrieval.encoder import EncoderConfig
from recsys.retrieval.recommender import DotRecommender, Recommender

logger = logging.getLogger(__name__)

MAX_HISTORY = 100_000
"""Items of a given history that are read: all that anybody has."""


def export_retrieval(run: Run) -> None:
    """Script, compare with eager, reload in a fresh process; the bundle appears only if all of that held.

    Raises:
        ParityError: the exported file says something else, or the index finds too little.
    """
    data, trained = run.stage("ingest"), run.stage("train")
    inputs = {"ingest": fingerprint(data), "train": fingerprint(trained)}
    check_made_with(trained, config=run.trained_with, inputs={"ingest": inputs["ingest"]})
    key = StageKey(stage="export", config=run.part("export", "embedding"), inputs=inputs, resolved=run.values)
    with stage(run.stage("export"), key, overwrite=run.config.overwrite) as folder:
        if folder is not None:
            _export(run, folder, inputs)


def check_index(run: Run) -> None:
    """Refuse, before hours of training, an index that the run's items cannot have.

    Raises:
        ConfigError: there are too few, or codes do not divide the columns.
    """
    model = retrieval_of(run).model
    dim = model.embedding_dim if isinstance(model, EncoderConfig) else None
    run.config.export.index.check(sizes(Manifest.read(run.stage("ingest")))[1] - 1, dim)


def _export(run: Run, folder: Path, inputs: Mapping[str, str]) -> None:
    data = run.stage("ingest")
    served = _served(run, data)
    config = run.config.export
    features = _golden_features(served, min(config.num_golden_rows, served.met.num_users - 1))
    reference = Reference.of(served, features)
    models = {kind.value: _write_model(folder, served, kind, reference, config) for kind in _row_types(served, config)}
    stored = {"features": features, "items": reference.listed, "scores": reference.scores}
    torch.save(stored, folder / GOLDEN_TENSORS_NAME)
    _write_items(folder / ITEMS_NAME, data, served)
    manifest = RetrievalManifest(
        format_version=FORMAT_VERSION,
        recommender=type(served.recommender).__name__,
        schema=served.schema,
        inputs=border_tensors(served.schema),
        outputs={"items": "int64 (B, K), raw keys", "scores": "float32 (B, K)"},
        num_users=served.met.num_users - 1,
        num_items=served.met.num_items - 1,
        models=models,
        plan_bytes=served.plan_bytes,
        index=_index(run, folder, served, features),
        quality=quality_of(run, inputs),
        versions=installed_versions(),
        lineage={"run": run.config.name, "inputs": dict(inputs), "train": read_record(run.stage("train"))},
    )
    answers = {"items": TensorType.INT64, "scores": TensorType.FLOAT32}
    (folder / TRITON_NAME).write_text(triton_config(manifest.inputs, answers, name="recsys", width=PLACES))
    (folder / CARD_NAME).write_text(retrieval_card(manifest))
    # Last: a folder without a manifest is no bundle, however far the export came.
    manifest.write(folder)


def _row_types(served: Served, config: ExportConfig) -> list[RowType]:
    """Types that the vectors are stored as; float32 alone where scores are no dot products."""
    if isinstance(served.recommender, DotRecommender):
        return list(config.row_types)
    if len(config.row_types) > 1:
        kind = type(served.recommender).__name__
        logger.info("float32 alone, not all of export.row_types: scores of a %s are no dot products", kind)
    return [RowType.FLOAT32]


def _write_model(
    folder: Path, served: Served, row_type: RowType, reference: Reference, config: ExportConfig
) -> ListModel:
    """Script, compare what the file lists, and let a fresh process list the same.

    Raises:
        ParityError: the file says something else.
    """
    path = folder / model_file_name(row_type)
    recommender = served.recommender
    if row_type is not RowType.FLOAT32:
        assert isinstance(recommender, DotRecommender)
        recommender = NarrowDots(recommender, row_type)
    write_scripted(script_model(_serving(served, recommender)), path)
    found: tuple[Tensor, Tensor] = load_scripted(path)(reference.features)
    parity = reference.compared(*found)
    require(path.name, parity, row_type, config)
    check_in_fresh_process(path, reference.features, found)
    size = path.stat().st_size
    held = module_bytes(recommender)
    told = "%s: %d bytes, of which %d make scores; keeps %.4f of the places of %d lists, largest error of a score %.1e"
    logger.info(told, path.name, size, held, parity.kept, parity.num_lists, parity.max_score_error)
    return ListModel(file=path.name, file_bytes=size, sha256=file_sha256(path), vector_bytes=held, parity=parity)


def _index(run: Run, folder: Path, served: Served, features: dict[str, Tensor]) -> IndexReport | None:
    """`items.faiss`, asked by the users of the golden lists."""
    config = run.config.export.index
    if config.kind is IndexKind.NONE:
        return None
    if not isinstance(served.recommender, DotRecommender):
        logger.info("no items.faiss: scores of a %s are no dot products", type(served.recommender).__name__)
        return None
    with torch.inference_mode():
        queries: Tensor = load_scripted(folder / model_file_name(RowType.FLOAT32)).query(features)
    report = write_index(served.recommender.items[1:], queries.clone(), config, folder)
    logger.info(
        "%s: %s finds %.4f of %d places in %.3f ms (exact: %.3f ms)",
        report.file,
        config.kind.value,
        report.recall,
        report.places,
        report.index_ms,
        report.exact_ms,
    )
    return report


def _served(run: Run, data: Path) -> Served:
    recommender, plan = load_served(run)
    manifest = Manifest.read(data)
    sizes(manifest)
    user, item = manifest.schema.categorical
    history = replace(item, multi_valued=True, max_length=MAX_HISTORY)
    return Served(
        recommender=recommender.eval(),
        plan_bytes=0 if plan is None else plan.num_bytes,
        schema=Schema(label=manifest.schema.label, categorical=(user, history)),
        keys={name: _keys(data, name) for name in (user.name, item.name)},
        met=read_interactions(data, KNOWN),
    )


def _keys(data: Path, name: str) -> Tensor:
    keys = pl.read_parquet(vocabulary_path(data, name))["key"].to_torch()
    return torch.cat([torch.tensor([MISSING_KEY]), keys])


def _serving(served: Served, recommender: Recommender) -> ServingRecommender:
    encoder = FeatureEncoder(served.schema, {}, {name: keys[1:] for name, keys in served.keys.items()}, {})
    kind = ServingVectors if isinstance(served.recommender, DotRecommender) else ServingRecommender
    item_keys = served.keys[served.columns[1]]
    return kind(recommender, encoder, schema=served.schema, item_keys=item_keys, met=served.met)


def _golden_features(served: Served, num_rows: int) -> dict[str, Tensor]:
    """Known users with nothing given, then new users with the histories of the same ones."""
    user, item = served.columns
    users = torch.arange(1, num_rows + 1)
    items, offsets = served.met.of_users(users)
    new = torch.full_like(users, MISSING_KEY)
    return {
        user: torch.cat([served.keys[user][users], new]),
        item: served.keys[item][items],
        item + LENGTHS_SUFFIX: torch.cat([torch.zeros_like(users), offsets.diff()]),
    }


def _write_items(path: Path, data: Path, served: Served) -> None:
    """Ids, keys, texts of hashed ones and training counts of all items; their vectors where scores are dot products."""
    item = served.schema.categorical[1]
    frame = pl.read_parquet(vocabulary_path(data, item.name)).with_row_index("id", offset=1)
    raw = sorted((data / RAW_FOLDER).glob("*.parquet"))
    if item.key_type is KeyType.STRING and raw:
        texts = pl.read_parquet(raw, columns=[item.name])[item.name].unique()
        known = pl.DataFrame({"key": string_keys(texts), "value": texts})
        frame = frame.join(known, on="key", how="left", maintain_order="left")
    if isinstance(served.recommender, DotRecommender):
        frame = frame.with_columns(pl.Series("vector", served.recommender.items[1:].numpy()))
    frame.write_parquet(path, compression="zstd")
