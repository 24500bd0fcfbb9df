"""`python -m pipelines.export`: the best checkpoint to a bundle that is served where this package is not installed."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from pipelines.config import Run
from pipelines.entry import stage_main
from pipelines.evaluate import CALIBRATION_NAME
from pipelines.model import Trained, learned_labels, load_trained
from pipelines.predictions import of_label
from pipelines.retrieval_export import export_retrieval
from pipelines.stage import StageKey, check_made_with, fingerprint, read_record, stage
from recsys.core.batch import Batch
from recsys.core.errors import StageError
from recsys.core.jsonable import to_json
from recsys.core.labels import score_columns
from recsys.core.manifest import Manifest
from recsys.core.schema import Schema
from recsys.data.encoder import load_encoder
from recsys.data.fingerprint import file_fingerprint
from recsys.data.ingest import RAW_SAMPLE_NAME
from recsys.data.loader import LoaderOptions, ParquetLoader
from recsys.data.raw import border_tensors
from recsys.data.times import written
from recsys.evaluate import Calibration, FittedCalibration
from recsys.export.bundle import FrozenModel, Golden, write_bundle
from recsys.export.calibration import (
    UNCALIBRATED,
    IsotonicProbabilities,
    PlattProbabilities,
    ServedCalibration,
    by_task,
    in_units,
)
from recsys.export.config import ExportConfig
from recsys.export.parity import Metrics, Parity
from recsys.metrics import PlattCalibration, auc, compare_auc, log_loss, rmse

logger = logging.getLogger(__name__)

EXAMPLE_ROWS = 100
METRICS = Metrics(
    auc=lambda labels, logits: auc(labels, logits).value,
    log_loss=lambda labels, logits: log_loss(labels, logits).value,
    auc_error=lambda labels, frozen, exported: compare_auc(labels, frozen, exported).standard_error.value,
    rmse=lambda labels, predictions: rmse(labels, predictions).value,
)


def work(run: Run) -> None:
    """Freeze, script, compare, reload in a fresh process; the bundle appears only if all of that held."""
    if run.config.retrieval is not None:
        export_retrieval(run)
        return
    data, trained = run.stage("ingest"), run.stage("train")
    inputs = {"ingest": fingerprint(data), "train": fingerprint(trained)}
    check_made_with(trained, config=run.trained_with, inputs={"ingest": inputs["ingest"]})
    labels = learned_labels(run.config, Manifest.read(data).schema)
    map_paths = calibration_paths(run, inputs, labels)
    for label, path in map_paths.items():
        inputs["calibration" if label == labels[0] else f"calibration of {label}"] = file_fingerprint(path)
    key = StageKey(stage="export", config=run.part("export", "embedding"), inputs=inputs, resolved=run.values)
    with stage(run.stage("export"), key, overwrite=run.config.overwrite) as folder:
        if folder is not None:
            fitted = [_read_map(map_paths[label]) if label in map_paths else None for label in labels]
            _export(run, folder, inputs, labels, fitted)


def _export(
    run: Run,
    folder: Path,
    inputs: Mapping[str, str],
    labels: Sequence[str],
    fitted: Sequence[FittedCalibration | None],
) -> None:
    """Write the bundle; `fitted` are the maps of the learned labels, None where probabilities are sigmoids."""
    data, config = run.stage("ingest"), run.config.export
    manifest, loaded = Manifest.read(data), load_trained(run)
    raw, golden = _golden(run, loaded, data)
    lineage = {"run": run.config.name, "inputs": inputs, "data": manifest.fingerprint}
    lineage |= {"train": read_record(run.stage("train"))}
    maps = by_task([UNCALIBRATED if each is None else served(each) for each in fitted])
    frozen = FrozenModel(
        schema=manifest.schema,
        parts=loaded.frozen,
        head=loaded.model.head,
        encoder=load_encoder(data),
        calibration=maps if manifest.label is None else in_units(manifest.label),
    )
    lineage |= {} if manifest.label is None else {"label": to_json(manifest.label)}
    facts = {label: _facts(each) for label, each in zip(labels, fitted, strict=True) if each is not None}
    lineage |= {"calibration": facts.pop(labels[0]), "calibration_of": facts} if facts else {}
    parity = write_bundle(folder, frozen, golden, config=config, metrics=METRICS, lineage=lineage)
    if not torch.equal(golden.logits, golden.trained_logits):
        _log_loss_of_freezing(parity)
    _write_golden(folder, raw, _golden_scores(frozen, golden), manifest.schema, config)


def _golden_scores(frozen: FrozenModel, golden: Golden) -> dict[str, Tensor]:
    """Columns beside golden rows: what is expected of each learned label, and the label itself."""
    scores: dict[str, Tensor] = {}
    names = score_columns(frozen.schema.label_kind, frozen.labels)
    for task, ((output, answer), map_of) in enumerate(zip(names, frozen.calibration.by_task, strict=True)):
        own = golden.of(task)
        scores |= {output: own.logits, answer: map_of.reference(own.logits).float()}
        scores[f"golden_label_{frozen.labels[task]}" if task else "golden_label"] = own.labels
    return scores


def calibration_paths(run: Run, inputs: Mapping[str, str], labels: Sequence[str]) -> dict[str, Path]:
    """Where the maps lie that evaluation fitted for this very model, by label; none where probabilities stay sigmoids.

    Args:
        run: whose configuration says whether there are any.
        inputs: fingerprints of the data and the training that they must be of.
        labels: that the model learns.
    Raises:
        StageError: evaluation has not fitted it, or on another training or embedding.
    """
    kind = run.config.evaluate.calibration
    if kind is Calibration.NONE or not run.config.export.calibrated:
        return {}
    evaluated = run.stage("evaluate")
    check_made_with(evaluated, config=run.part("embedding"), inputs=inputs)
    paths = {label: of_label(evaluated, labels, label) / CALIBRATION_NAME for label in labels}
    path = paths[labels[0]]
    found = json.loads(path.read_text())["kind"] if path.is_file() else Calibration.NONE.value
    if found != kind.value:
        raise StageError(
            f"{evaluated} was made with evaluate.calibration={found}, this is evaluate.calibration={kind.value}: the "
            "map to export is not there. Run `python -m pipelines.evaluate` with it and overwrite=true, or set "
            "export.calibrated=false."
        )
    return paths


def _read_map(path: Path) -> FittedCalibration:
    return FittedCalibration.from_json(json.loads(path.read_text()))


def served(fitted: FittedCalibration) -> ServedCalibration:
    """A fitted map as the exported model holds it."""
    found = fitted.map
    module: nn.Module
    if isinstance(found, PlattCalibration):
        module = PlattProbabilities(slope=found.slope, intercept=found.intercept)
    else:
        module = IsotonicProbabilities(found.knots, found.probabilities)
    return ServedCalibration(module=module, reference=lambda logits: torch.sigmoid(fitted.apply(logits)))


def _facts(fitted: FittedCalibration) -> dict[str, Any]:
    """What the manifest says of a map; its points, of which there may be thousands, are in the model."""
    return {key: value for key, value in fitted.to_json().items() if not isinstance(value, list)}


def _log_loss_of_freezing(parity: Parity) -> None:
    if parity.frozen_rmse is not None and parity.trained_rmse is not None:
        rmses = parity.frozen_rmse, parity.trained_rmse
        logger.info("frozen: RMSE %.5f, as trained %.5f over %d rows", *rmses, parity.num_rows)
    frozen, trained = parity.frozen_auc, parity.trained_auc
    if frozen is not None and trained is not None:  # undefined where all labels are equal
        difference = frozen - trained
        logger.info(
            "frozen: AUC %.5f, as trained %.5f (%+.5f) over %d rows", frozen, trained, difference, parity.num_rows
        )


def _write_golden(
    folder: Path, raw: pl.DataFrame, scores: Mapping[str, Tensor], schema: Schema, config: ExportConfig
) -> None:
    """Raw rows with their expected scores, as Parquet; the first of them as CSV, as a client might send them."""
    scored = raw.hstack(pl.DataFrame({name: values.numpy() for name, values in scores.items()}))
    scored.head(config.num_golden_rows).write_parquet(folder / "golden.parquet")
    separators = {feature.name: feature.separator for feature in schema.categorical if feature.multi_valued}
    separators |= {feature.weights: feature.separator for feature in schema.categorical if feature.weights}
    joined = [pl.col(name).cast(pl.List(pl.String)).list.join(separators[name]) for name in separators]
    written(raw.head(EXAMPLE_ROWS).select(schema.raw_columns), schema).with_columns(joined).write_csv(
        folder / "example.csv"
    )


def _golden(run: Run, loaded: Trained, data: Path) -> tuple[pl.DataFrame, Golden]:
    """The first raw test rows, and what the model says about them as ingest encoded them."""
    raw = pl.read_parquet(data / RAW_SAMPLE_NAME).head(run.config.export.num_parity_rows)
    schema = Manifest.read(data).schema
    num_labels = len(learned_labels(run.config, schema))
    options = LoaderOptions(batch_size=4096, shuffle=False, drop_last=False, num_labels=num_labels)
    batches: list[Batch] = []
    rows = 0
    for batch in ParquetLoader(data, "test", options).epoch(0):
        batches.append(batch)
        rows += batch.labels.shape[0]
        if rows >= raw.height:
            break
    labels = torch.cat([batch.labels for batch in batches])[: raw.height]
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
