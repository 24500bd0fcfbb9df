"""Write a bundle: models, parity, manifest, model card, server configuration; verified before it is believed."""

import copy
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from recsys.core.batch import of_task
from recsys.core.errors import ConfigError
from recsys.core.labels import LabelKind
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import TablePlan
from recsys.core.schema import Schema
from recsys.core.specs import RowType
from recsys.export.border import BorderCheck, BorderTensor, TensorType, border_tensors, model_outputs, slice_rows
from recsys.export.calibration import UNCALIBRATED, InUnits, ServedCalibration
from recsys.export.card import CARD_NAME, model_card
from recsys.export.config import ExportConfig
from recsys.export.fresh_process import check_in_fresh_process
from recsys.export.gate import require
from recsys.export.manifest import FORMAT_VERSION, BundleManifest, ModelFile, file_sha256, schema_fingerprint
from recsys.export.narrow import narrow
from recsys.export.parity import Metrics, Parity, measure, score
from recsys.export.script import load_scripted, script_model, write_scripted
from recsys.export.serving import ServingEmbeddings, ServingModel
from recsys.export.triton import TRITON_NAME, triton_config

GOLDEN_TENSORS_NAME = "golden.pt"

ModuleT = TypeVar("ModuleT", bound=nn.Module)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FrozenModel:
    """What is exported: a trained model whose embeddings are frozen. Modules are not changed, but copied."""

    schema: Schema
    parts: EmbeddingParts  # as the embedding method freezes them
    head: nn.Module  # (dense (B, num_dense), embeddings (B, sum of embedding_dim)) -> logits (B,) or (B, T)
    encoder: nn.Module  # border tensors -> dense, ids and offsets per categorical column of the schema
    # Of each task that the head has an output for; of number labels: to the label's units.
    calibration: ServedCalibration = UNCALIBRATED

    def __post_init__(self) -> None:
        in_units = isinstance(self.calibration.module, InUnits)
        assert in_units == (self.schema.label_kind is LabelKind.NUMBER), "outputs of number labels have units"

    @property
    def labels(self) -> tuple[str, ...]:
        """What it tells of, the main one first."""
        return self.schema.labels[: len(self.calibration.by_task)]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Raw rows with what the model says about them, evaluated in float32."""

    features: dict[str, Tensor]  # border tensors of R rows
    logits: Tensor  # float32 (R,), of the model with frozen embeddings: what the exported file must say
    trained_logits: Tensor  # float32 (R,), of the model as it was trained: what freezing may have changed
    labels: Tensor  # (R,), 0 or 1, or numbers where the schema says so; of T tasks these three are (R, T)

    def of(self, task: int) -> "Golden":
        """Those of one task."""
        logits, trained_logits, labels = (
            of_task(each, task) for each in (self.logits, self.trained_logits, self.labels)
        )
        return Golden(features=self.features, logits=logits, trained_logits=trained_logits, labels=labels)


def model_file_name(row_type: RowType) -> str:
    """File name of the model with that row type."""
    return "model.pt" if row_type is RowType.FLOAT32 else f"model_{row_type.value}.pt"


def write_bundle(
    folder: Path,
    model: FrozenModel,
    golden: Golden,
    *,
    config: ExportConfig,
    metrics: Metrics,
    lineage: Mapping[str, Any],
) -> Parity:
    """Export, compare, reload in a fresh process, and describe; `folder` exists and is empty.

    Raises:
        ParityError: a model deviates beyond the limits of `config`, uses foreign operators or fails in a fresh process.
        CheckpointError: tables do not fit the plan.
        ConfigError: golden rows are missing or inconsistent.
    """
    tensors = border_tensors(model.schema)
    _check_golden(golden, tensors)
    paths = {row_type: folder / model_file_name(row_type) for row_type in config.row_types}
    models = {row_type.value: export_model(model, row_type, path) for row_type, path in paths.items()}
    _tell_what_gains_nothing(models)
    # What is compared is read back from the file, not what is in memory.
    scores = {row_type: score(load_scripted(path), golden.features, tensors) for row_type, path in paths.items()}
    parity = measure(scores, golden, metrics, model.calibration, kind=model.schema.label_kind, labels=model.labels)
    parity.write(folder)
    require(parity, config)
    num_rows = min(config.num_golden_rows, golden.labels.shape[0])
    stored = _write_golden_tensors(folder, golden, tensors, model, num_rows=num_rows)
    for row_type, path in paths.items():
        said = scores[row_type].head(num_rows)
        check_in_fresh_process(path, stored, (said.logits, said.probabilities))
    _describe(folder, model, models, parity, lineage)
    return parity


def _tell_what_gains_nothing(models: Mapping[str, ModelFile]) -> None:
    """Warn of narrower rows in no smaller a file: what the method stores is narrow already."""
    exact = models.get(RowType.FLOAT32.value)
    for row_type, known in models.items():
        if exact is not None and known is not exact and known.file_bytes >= exact.file_bytes:
            sizes = known.file, known.file_bytes, exact.file, exact.file_bytes
            logger.warning(
                "%s (%d bytes) is no smaller than %s (%d): serve that, and leave %s out of export.row_types",
                *sizes,
                row_type,
            )


def export_model(model: FrozenModel, row_type: RowType, path: Path) -> ModelFile:
    """Freeze, script and save one model.

    Raises:
        ParityError: the model uses operators that stock libtorch does not have.
        CheckpointError: tables do not fit the plan.
    """
    plan, serving = build_serving_model(model, row_type)
    write_scripted(script_model(serving), path)
    entry = ModelFile(
        file=path.name,
        file_bytes=path.stat().st_size,
        sha256=file_sha256(path),
        plan=plan,
        plan_bytes=plan.num_bytes,
        table_bytes=plan.table_bytes,
        remap_bytes=plan.remap_bytes,
        combiner_bytes=plan.combiner_bytes,
        bytes_by_table={table.name: table.num_bytes for table in plan.tables},
        head_bytes=module_bytes(serving.head) + module_bytes(serving.probabilities),
        encoder_bytes=module_bytes(serving.encoder),
    )
    logger.info("%s: %d bytes, of which %d are embeddings", path.name, entry.file_bytes, entry.plan_bytes)
    return entry


def build_serving_model(model: FrozenModel, row_type: RowType) -> tuple[TablePlan, ServingModel]:
    """The serving plan and the eager serving model, in evaluation mode, on the CPU, without gradients."""
    parts = narrow(model.parts, row_type)
    parts = replace(
        parts,
        remaps={name: _frozen_copy(remap) for name, remap in parts.remaps.items()},
        combiners={name: _frozen_copy(combiner) for name, combiner in parts.combiners.items()},
    )
    embeddings = ServingEmbeddings(parts, [feature.name for feature in model.schema.categorical])
    border = BorderCheck(border_tensors(model.schema))
    encoder = _frozen_copy(model.encoder)
    head, probabilities = _frozen_copy(model.head), _frozen_copy(model.calibration.module)
    return parts.plan, ServingModel(border, encoder, embeddings, head, probabilities).eval()


def module_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def _describe(
    folder: Path, model: FrozenModel, models: dict[str, ModelFile], parity: Parity, lineage: Mapping[str, Any]
) -> None:
    schema, tensors = model.schema, border_tensors(model.schema)
    manifest = BundleManifest(
        format_version=FORMAT_VERSION,
        schema=schema,
        schema_fingerprint=schema_fingerprint(schema),
        inputs=tensors,
        outputs=model_outputs(schema),
        labels=model.labels,
        models=models,
        versions=installed_versions(),
        lineage=dict(lineage),
    )
    answers = dict.fromkeys(manifest.outputs, TensorType.FLOAT32)
    (folder / TRITON_NAME).write_text(triton_config(tensors, answers, name="recsys", width=len(model.labels)))
    (folder / CARD_NAME).write_text(model_card(manifest, parity))
    # Last: a folder without a manifest is no bundle, however far the export came.
    manifest.write(folder)


def _frozen_copy(module: ModuleT) -> ModuleT:
    return copy.deepcopy(module).cpu().eval().requires_grad_(False)


def _write_golden_tensors(
    folder: Path, golden: Golden, tensors: Sequence[BorderTensor], model: FrozenModel, *, num_rows: int
) -> dict[str, Tensor]:
    """Write the first rows as tensors that Python and C++ (`torch::pickle_load`) read; return their border tensors."""
    features = slice_rows(golden.features, tensors, start=0, stop=num_rows)
    logits = golden.logits[:num_rows].clone()
    said = (logits, model.calibration.reference(logits).float())
    stored = dict(zip(model_outputs(model.schema), said, strict=True))
    stored["labels"] = golden.labels[:num_rows].to(torch.float32)
    torch.save({"features": features, **stored}, folder / GOLDEN_TENSORS_NAME)
    return features


def _check_golden(golden: Golden, tensors: Sequence[BorderTensor]) -> None:
    num_rows = golden.labels.shape[0]
    missing = sorted({tensor.name for tensor in tensors} - set(golden.features))
    if num_rows == 0 or golden.logits.shape != golden.labels.shape or missing:
        raise ConfigError(
            f"golden rows: {golden.labels.numel()} labels, {golden.logits.numel()} logits, missing inputs {missing}. "
            "Parity needs at least one row with label, trained logit and all inputs; take them from the validation or "
            "test split."
        )
    if not bool(torch.isfinite(torch.cat([golden.logits, golden.trained_logits])).all()):
        raise ConfigError(
            "golden rows: trained logits hold NaN or infinity. Training diverged; there is nothing to export."
        )


def installed_versions() -> dict[str, str]:
    """Of Python and of what a bundle is made with."""
    found = {"python": platform.python_version()}
    for name in ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "faiss-cpu", "recsys"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
