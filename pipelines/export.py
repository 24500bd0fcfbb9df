"""`python -m pipelines.export`: the best checkpoint to a bundle that is served where this package is not installed."""

from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from pipelines.config import Run
from pipelines.entry import stage_main
from pipelines.model import PlannedModel, build_model
from pipelines.stage import StageKey, check_made_with, fingerprint, read_record, stage
from recsys.core.manifest import Manifest
from recsys.core.schema import Schema
from recsys.data.encoder import load_encoder
from recsys.data.ingest import RAW_SAMPLE_NAME
from recsys.data.loader import LoaderOptions, ParquetLoader
from recsys.data.raw import border_tensors
from recsys.embeddings.collection import parts_in
from recsys.export.bundle import Golden, TrainedModel, write_bundle
from recsys.export.parity import Metrics
from recsys.metrics import auc, log_loss
from recsys.train import checkpoint
from recsys.train.tables import table_of

EXAMPLE_ROWS = 100


def work(run: Run) -> None:
    """Freeze, script, compare, reload in a fresh process; the bundle appears only if all of that held."""
    data, trained = run.stage("ingest"), run.stage("train")
    inputs = {"ingest": fingerprint(data), "train": fingerprint(trained)}
    check_made_with(trained, config=run.part("model", "embedding"), inputs={"ingest": inputs["ingest"]})
    key = StageKey(stage="export", config=run.part("export"), inputs=inputs, resolved=run.values)
    with stage(run.stage("export"), key, overwrite=run.config.overwrite) as folder:
        if folder is None:
            return
        manifest = Manifest.read(data)
        built = build_model(run.config, manifest, on_meta=False)
        weights = _load_best(built, trained / "checkpoints" / "best")
        raw, golden = _golden(run, built, data)
        lineage = {
            "run": run.config.name,
            "inputs": inputs,
            "train": read_record(trained),
            "data": manifest.fingerprint,
        }
        write_bundle(
            folder,
            _trained_model(built, manifest, weights, data),
            golden,
            config=run.config.export,
            metrics=Metrics(auc=lambda y, x: auc(y, x).value, log_loss=lambda y, x: log_loss(y, x).value),
            lineage=lineage,
        )
        _write_golden(folder, raw, golden, manifest.schema, count=run.config.export.num_golden_rows)


def _write_golden(folder: Path, raw: pl.DataFrame, golden: Golden, schema: Schema, *, count: int) -> None:
    """Raw rows with their expected scores, as Parquet; the first of them as CSV, as a client might send them."""
    scores = pl.DataFrame({"logit": golden.logits.numpy(), "golden_label": golden.labels.numpy()})
    raw.hstack(scores).head(count).write_parquet(folder / "golden.parquet")
    columns = [*(feature.name for feature in schema.numeric), *(feature.name for feature in schema.categorical)]
    separators = {feature.name: feature.separator for feature in schema.categorical if feature.multi_valued}
    joined = [pl.col(name).cast(pl.List(pl.String)).list.join(separators[name]) for name in separators]
    raw.head(EXAMPLE_ROWS).select(columns).with_columns(joined).write_csv(folder / "example.csv")


def _load_best(built: PlannedModel, best: Path) -> dict[str, Tensor]:
    """Load the checkpoint into the unsharded model; returns its tables by name, at their exact width."""
    checkpoint.read_state(best, built.plan)
    state = checkpoint.read_tensors(best, "model.")
    built.model.load_state_dict(state)
    tables = {key: table for key in state if (table := table_of(key, built.plan)) is not None}
    return {table.name: state[key][:, : table.embedding_dim].contiguous() for key, table in tables.items()}


def _golden(run: Run, built: PlannedModel, data: Path) -> tuple[pl.DataFrame, Golden]:
    """The first raw test rows, and what the trained model says about them as ingest encoded them."""
    raw = pl.read_parquet(data / RAW_SAMPLE_NAME).head(run.config.export.num_parity_rows)
    options = LoaderOptions(batch_size=4096, shuffle=False, drop_last=False)
    batches, rows = [], 0
    for batch in ParquetLoader(data, "test", options).epoch(0):
        batches.append(batch)
        rows += batch.labels.numel()
        if rows >= raw.height:
            break
    with torch.no_grad():
        built.model.eval()
        logits = torch.cat([built.model(batch.dense, batch.sparse) for batch in batches])[: raw.height]
    labels = torch.cat([batch.labels for batch in batches])[: raw.height]
    schema = Manifest.read(data).schema
    return raw, Golden(features=border_tensors(raw, schema), logits=logits, labels=labels)


def _trained_model(built: PlannedModel, manifest: Manifest, tables: dict[str, Tensor], data: Path) -> TrainedModel:
    parts = parts_in(built.embeddings)
    return TrainedModel(
        schema=manifest.schema,
        plan=built.plan,
        tables=tables,
        remaps={name: remap for name, (remap, _) in parts.items()},
        combiners={name: combiner for name, (_, combiner) in parts.items()},
        head=built.model.head,
        encoder=load_encoder(data),
    )


main = stage_main(work)

if __name__ == "__main__":
    main()
