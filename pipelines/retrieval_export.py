"""Export of a retrieval run: one TorchScript file, raw keys in and out, proven in a process that has torch alone."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from recsys.core.names import LENGTHS_SUFFIX
from recsys.core.schema import MISSING_KEY, KeyType, Schema
from recsys.data.encoder import FeatureEncoder, vocabulary_path
from recsys.data.interactions import read_interactions, sizes
from recsys.data.raw import string_keys
from recsys.export.border import border_tensors
from recsys.export.bundle import GOLDEN_TENSORS_NAME, installed_versions
from recsys.export.card import CARD_NAME
from recsys.export.fresh_process import check_in_fresh_process
from recsys.export.index_config import IndexKind, IndexReport
from recsys.export.item_index import write_index
from recsys.export.manifest import file_sha256
from recsys.export.retrieval_card import retrieval_card
from recsys.export.retrieval_manifest import FORMAT_VERSION, ITEMS_NAME, RetrievalManifest, RetrievalParity
from recsys.export.script import load_scripted, script_model, write_scripted
from recsys.export.serving_recommender import ServingRecommender, ServingVectors
from recsys.ops.top_k import hide, top_k
from recsys.retrieval.recommender import DotRecommender, Recommender

logger = logging.getLogger(__name__)

MODEL_NAME = "model.pt"
MAX_HISTORY = 100_000
"""Items of a given history that are read: all that anybody has."""
PLACES = 20
MAX_SCORE_ERROR = 1e-5
"""Of the largest score: products are summed in another order."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """What is exported, with the keys that ids stand for."""

    recommender: Recommender
    plan_bytes: int
    schema: Schema  # user, then the items of a history
    keys: dict[str, Tensor]  # raw key of each id by column, int64; that of id 0 is `MISSING_KEY`
    met: Interactions

    @property
    def columns(self) -> tuple[str, str]:
        """Names of users and items."""
        user, item = (column.name for column in self.schema.categorical)
        return user, item


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


def _export(run: Run, folder: Path, inputs: Mapping[str, str]) -> None:
    data = run.stage("ingest")
    served = _served(run, data)
    write_scripted(script_model(_serving(served)), folder / MODEL_NAME)
    features = _golden_features(served, min(run.config.export.num_golden_rows, served.met.num_users - 1))
    parity, outputs = _check_parity(folder / MODEL_NAME, served, features)
    check_in_fresh_process(folder / MODEL_NAME, features, outputs)
    torch.save({"features": features, "items": outputs[0], "scores": outputs[1]}, folder / GOLDEN_TENSORS_NAME)
    _write_items(folder / ITEMS_NAME, data, served)
    manifest = RetrievalManifest(
        format_version=FORMAT_VERSION,
        recommender=type(served.recommender).__name__,
        schema=served.schema,
        inputs=border_tensors(served.schema),
        outputs={"items": "int64 (B, K), raw keys", "scores": "float32 (B, K)"},
        num_users=served.met.num_users - 1,
        num_items=served.met.num_items - 1,
        file=MODEL_NAME,
        file_bytes=(folder / MODEL_NAME).stat().st_size,
        sha256=file_sha256(folder / MODEL_NAME),
        plan_bytes=served.plan_bytes,
        parity=parity,
        index=_index(run, folder, served, features),
        versions=installed_versions(),
        lineage={"run": run.config.name, "inputs": dict(inputs), "train": read_record(run.stage("train"))},
    )
    (folder / CARD_NAME).write_text(retrieval_card(manifest))
    # Last: a folder without a manifest is no bundle, however far the export came.
    manifest.write(folder)
    logger.info("%s: %d bytes", MODEL_NAME, manifest.file_bytes)


def _index(run: Run, folder: Path, served: Served, features: dict[str, Tensor]) -> IndexReport | None:
    """`items.faiss`, asked by the users of the golden lists."""
    config = run.config.export.index
    if config.kind is IndexKind.NONE:
        return None
    if not isinstance(served.recommender, DotRecommender):
        logger.info("no items.faiss: scores of a %s are no dot products", type(served.recommender).__name__)
        return None
    with torch.inference_mode():
        queries: Tensor = load_scripted(folder / MODEL_NAME).query(features)
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


def _serving(served: Served) -> ServingRecommender:
    encoder = FeatureEncoder(served.schema, {}, {name: keys[1:] for name, keys in served.keys.items()}, {})
    kind = ServingVectors if isinstance(served.recommender, DotRecommender) else ServingRecommender
    item_keys = served.keys[served.columns[1]]
    return kind(served.recommender, encoder, schema=served.schema, item_keys=item_keys, met=served.met)


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


@torch.no_grad()
def _check_parity(
    path: Path, served: Served, features: dict[str, Tensor]
) -> tuple[RetrievalParity, tuple[Tensor, Tensor]]:
    """What the file lists, which must be what the recommender lists here, or as good.

    Raises:
        ParityError: it is not.
    """
    user, item = served.columns
    users = torch.arange(1, features[user].numel() // 2 + 1)
    items, offsets = served.met.of_users(users)
    found: tuple[Tensor, Tensor] = load_scripted(path)(features)
    listed = _ids_of(served.keys[item], found[0])
    lists, own = [], []
    for ids, part in zip((users, torch.zeros_like(users)), listed.chunk(2), strict=True):
        scores = hide(served.recommender(ids, items, offsets), items, offsets)
        own.append(scores.gather(1, part))
        lists.append(top_k(scores, PLACES))
    best, scores = (torch.cat(part) for part in zip(*lists, strict=True))
    parity = RetrievalParity(
        num_lists=len(best),
        places=PLACES,
        max_score_error=_error(torch.stack([found[1], torch.cat(own)]), scores),
        different_places=int((found[0] != served.keys[item][best]).sum()),
    )
    if not parity.max_score_error <= MAX_SCORE_ERROR:
        raise ParityError(
            f"{path.name}: its scores, or the recommender's of the items that it lists, differ by "
            f"{parity.max_score_error:.3g} of the largest from the recommender's best, above {MAX_SCORE_ERROR:g}. Do "
            "not serve it."
        )
    logger.info("parity: %s", parity)
    return parity, found


def _ids_of(keys: Tensor, listed: Tensor) -> Tensor:
    """The ids that some raw keys stand for, shape of `listed`; `keys` has that of each id, distinct."""
    ordered, ids = keys.sort()
    return ids[torch.searchsorted(ordered, listed).clamp(max=len(ids) - 1)]


def _error(found: Tensor, expected: Tensor) -> float:
    """Largest difference by the largest finite score, or by 1; NaN where one of them is NaN."""
    largest = expected.masked_fill(~expected.isfinite(), 0.0).abs().max().clamp(min=1.0)
    same = found == expected  # two empty places too, whose -inf have no difference
    return float((found - expected).abs().masked_fill(same, 0.0).max() / largest)


def _write_items(path: Path, data: Path, served: Served) -> None:
    """Ids, keys, texts of hashed ones and training counts of all items; their vectors where scores are dot products."""
    item = served.schema.categorical[1]
    frame = pl.read_parquet(vocabulary_path(data, item.name)).with_row_index("id", offset=1)
    raw = sorted((data / "raw").glob("*.parquet"))
    if item.key_type is KeyType.STRING and raw:
        texts = pl.read_parquet(raw, columns=[item.name])[item.name].unique()
        known = pl.DataFrame({"key": string_keys(texts), "value": texts})
        frame = frame.join(known, on="key", how="left", maintain_order="left")
    if isinstance(served.recommender, DotRecommender):
        frame = frame.with_columns(pl.Series("vector", served.recommender.items[1:].numpy()))
    frame.write_parquet(path, compression="zstd")
