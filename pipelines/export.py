"""`python -m pipelines.export`: the best checkpoint to a bundle that is served where this package is not installed."""

import logging
from pathlib import Path

import polars as pl
import torch
from torch import Tensor, nn

from pipelines.config import Run
from pipelines.entry import stage_main
from pipelines.model import Trained, load_trained
from pipelines.stage import StageKey, check_made_with, fingerprint, read_record, stage
from recsys.core.batch import Batch
from recsys.core.manifest import Manifest
from recsys.core.schema import Schema
from recsys.data.encoder import load_encoder
from recsys.data.ingest import RAW_SAMPLE_NAME
from recsys.data.loader import LoaderOptions, ParquetLoader
from recsys.data.raw import border_tensors
from recsys.data.times import written
from recsys.export.bundle import FrozenModel, Golden, write_bundle
from recsys.export.parity import Metrics, Parity
from recsys.metrics import auc, log_loss

logger = logging.getLogger(__name__)

EXAMPLE_ROWS = 100


def work(run: Run) -> None:
    """Freeze, script, compare, reload in a fresh process; the bundle appears only if all of that held."""
    data, trained = run.stage("ingest"), run.stage("train")
    inputs = {"ingest": fingerprint(data), "train": fingerprint(trained)}
    check_made_with(trained, config=run.trained_with, inputs={"ingest": inputs["ingest"]})
    key = StageKey(stage="export", config=run.part("export", "embedding"), inputs=inputs, resolved=run.values)
    with stage(run.stage("export"), key, overwrite=run.config.overwrite) as folder:
        if folder is None:
            return
        manifest = Manifest.read(data)
        loaded = load_trained(run)
        raw, golden = _golden(run, loaded, data)
        lineage = {
            "run": run.config.name,
            "inputs": inputs,
            "train": read_record(trained),
            "data": manifest.fingerprint,
        }
        parity = write_bundle(
            folder,
            FrozenModel(
                schema=manifest.schema, parts=loaded.frozen, head=loaded.model.head, encoder=load_encoder(data)
            ),
            golden,
            config=run.config.export,
            metrics=Metrics(auc=lambda y, x: auc(y, x).value, log_loss=lambda y, x: log_loss(y, x).value),
            lineage=lineage,
        )
        if not torch.equal(golden.logits, golden.trained_logits):
            _log_loss_of_freezing(parity)
        _write_golden(folder, raw, golden, manifest.schema, count=run.config.export.num_golden_rows)


def _log_loss_of_freezing(parity: Parity) -> None:
    frozen, trained = parity.frozen_auc, parity.trained_auc
    if frozen is not None and trained is not None:  # undefined where all labels are equal
        difference = frozen - trained
        logger.info(
            "frozen: AUC %.5f, as trained %.5f (%+.5f) over %d rows", frozen, trained, difference, parity.num_rows
        )


def _write_golden(folder: Path, raw: pl.DataFrame, golden: Golden, schema: Schema, *, count: int) -> None:
    """Raw rows with their expected scores, as Parquet; the first of them as CSV, as a client might send them."""
    scores = pl.DataFrame({"logit": golden.logits.numpy(), "golden_label": golden.labels.numpy()})
    raw.hstack(scores).head(count).write_parquet(folder / "golden.parquet")
    separators = {feature.name: feature.separator for feature in schema.categorical if feature.multi_valued}
    joined = [pl.col(name).cast(pl.List(pl.String)).list.join(separators[name]) for name in separators]
    written(raw.head(EXAMPLE_ROWS).select(schema.raw_columns), schema).with_columns(joined).write_csv(
        folder / "example.csv"
    )


def _golden(run: Run, loaded: Trained, data: Path) -> tuple[pl.DataFrame, Golden]:
    """The first raw test rows, and what the model says about them as ingest encoded them."""
    raw = pl.read_parquet(data / RAW_SAMPLE_NAME).head(run.config.export.num_parity_rows)
    options = LoaderOptions(batch_size=4096, shuffle=False, drop_last=False)
    batches: list[Batch] = []
    rows = 0
    for batch in ParquetLoader(data, "test", options).epoch(0):
        batches.append(batch)
        rows += batch.labels.numel()
        if rows >= raw.height:
            break
    labels = torch.cat([batch.labels for batch in batches])[: raw.height]
    schema = Manifest.read(data).schema
    golden = Golden(
        features=border_tensors(raw, schema),
        logits=_logits(loaded.frozen_model, batches)[: raw.height],
        trained_logits=_logits(loaded.model, batches)[: raw.height],
        labels=labels,
    )
    return raw, golden


def _logits(model: nn.Module, batches: list[Batch]) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(batch.dense, batch.sparse) for batch in batches])


main = stage_main(work)

if __name__ == "__main__":
    main()
