"""Does the exported model say what the model said before? Measured, written down, and refused where it does not."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from recsys.core.batch import of_task
from recsys.core.errors import DataError, ParityError
from recsys.core.jsonable import from_json, to_json
from recsys.core.specs import RowType
from recsys.export.border import BorderTensor, count_rows, slice_rows
from recsys.export.calibration import ServedCalibration
from recsys.export.config import ExportConfig

PARITY_NAME = "parity.json"
SCORE_ROWS = 4096  # rows per call while comparing
MAX_PROBABILITY_ERROR = 1e-6
"""Largest |probability - calibration's of the same logit|: float32 rounds by less."""
CHANCE = 1.96
"""Standard errors within which chance alone leaves 95 of 100 differences."""


Metric = Callable[[Tensor, Tensor], float | None]
"""Takes labels (R,) and logits (R,); None means undefined, as AUC is where all labels are equal."""

ErrorOfDifference = Callable[[Tensor, Tensor, Tensor], float | None]
"""Takes labels (R,) and two logits (R,); None: the difference does not vary, or rows are too few."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The metrics that the caller evaluates with."""

    auc: Metric
    log_loss: Metric
    auc_error: ErrorOfDifference  # standard error, over samples of rows, of the difference of the two AUCs


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """What an exported model says of R rows: logits and probabilities, float32 (R,) each, or (R, T) of T tasks."""

    logits: Tensor
    probabilities: Tensor

    def of(self, task: int) -> "Scores":
        """Those of one task."""
        return Scores(logits=of_task(self.logits, task), probabilities=of_task(self.probabilities, task))

    def head(self, num_rows: int) -> "Scores":
        """The first rows, copied so that they own their memory."""
        return Scores(logits=self.logits[:num_rows].clone(), probabilities=self.probabilities[:num_rows].clone())


@dataclass(frozen=True, kw_only=True)
class RowTypeParity:
    """One exported model against the frozen one in eager mode, over the same rows."""

    row_type: RowType
    max_abs_logit_difference: float
    mean_abs_logit_difference: float
    max_logit_error: float  # largest |difference| / max(1, |frozen logit|)
    max_probability_error: float  # largest |probability - what the calibration makes of the exported logit|
    auc: float | None  # None: undefined on these rows
    auc_delta: float | None  # exported - frozen
    auc_error: float | None  # standard error of auc_delta over samples of rows; None: it does not vary
    log_loss: float | None
    log_loss_delta: float | None  # exported - frozen, nats


@dataclass(frozen=True, kw_only=True)
class Parity:
    """All exported models against the frozen one, and that against the trained one.

    Freezing is the embedding method's own loss (codes for rows, narrow rows); most methods freeze without any.
    """

    num_rows: int
    num_positives: int
    trained_auc: float | None
    trained_log_loss: float | None
    frozen_auc: float | None
    frozen_log_loss: float | None
    models: tuple[RowTypeParity, ...]
    other_labels: "dict[str, Parity]" = field(default_factory=dict)  # of each task that is learned behind the main one

    def of(self, row_type: RowType) -> RowTypeParity:
        """The model of that row type."""
        return next(model for model in self.models if model.row_type is row_type)

    def write(self, folder: Path) -> None:
        """Write `parity.json`."""
        (folder / PARITY_NAME).write_text(json.dumps(to_json(self), indent=1))

    @staticmethod
    def read(folder: Path) -> "Parity":
        """Read `parity.json`.

        Raises:
            DataError: absent or damaged.
        """
        try:
            return from_json(Parity, json.loads((folder / PARITY_NAME).read_text()))
        except (OSError, json.JSONDecodeError) as error:
            raise DataError(f"{folder / PARITY_NAME}: cannot be read ({error}). Export again.") from error


def score(model: torch.jit.ScriptModule, features: dict[str, Tensor], tensors: Sequence[BorderTensor]) -> Scores:
    """Scores of all rows, computed in slices so that memory stays bounded."""
    num_rows = count_rows(features, tensors)
    with torch.inference_mode():
        parts = [
            model(slice_rows(features, tensors, start=start, stop=min(start + SCORE_ROWS, num_rows)))
            for start in range(0, num_rows, SCORE_ROWS)
        ]
    logits, probabilities = (torch.cat(column) for column in zip(*parts, strict=True))
    return Scores(logits=logits, probabilities=probabilities)


class Expected(Protocol):
    """What the model said before it was exported: float32 logits (R,) and labels (R,), or (R, T) of T tasks."""

    @property
    def logits(self) -> Tensor:
        """With frozen embeddings."""

    @property
    def trained_logits(self) -> Tensor:
        """As it was trained."""

    @property
    def labels(self) -> Tensor:
        """0 or 1."""

    def of(self, task: int) -> "Expected":
        """Those of one task."""


def measure(
    scores: Mapping[RowType, Scores],
    expected: Expected,
    metrics: Metrics,
    calibration: ServedCalibration,
    labels: Sequence[str] = (),
) -> Parity:
    """Compare exported logits with those of the model in eager mode, and probabilities with the calibration's own.

    Args:
        scores: what each exported model says.
        expected: what they should say.
        metrics: of rows.
        calibration: what probabilities are checked against.
        labels: names of the learned labels, the main one first; needed where there are several.
    Raises:
        ParityError: an exported logit is NaN or infinite.
    """
    tasks = [
        _measured({row_type: each.of(task) for row_type, each in scores.items()}, expected.of(task), metrics, own)
        for task, own in enumerate(calibration.by_task)
    ]
    return replace(tasks[0], other_labels=dict(zip(labels[1:], tasks[1:], strict=True)))


def _measured(
    scores: Mapping[RowType, Scores], expected: Expected, metrics: Metrics, calibration: ServedCalibration
) -> Parity:
    """Of one task."""
    frozen, labels = expected.logits, expected.labels
    return Parity(
        num_rows=labels.numel(),
        num_positives=int((labels != 0).sum()),
        trained_auc=metrics.auc(labels, expected.trained_logits),
        trained_log_loss=metrics.log_loss(labels, expected.trained_logits),
        frozen_auc=metrics.auc(labels, frozen),
        frozen_log_loss=metrics.log_loss(labels, frozen),
        models=tuple(_compare(row_type, each, expected, metrics, calibration) for row_type, each in scores.items()),
    )


def _compare(
    row_type: RowType, scores: Scores, expected: Expected, metrics: Metrics, calibration: ServedCalibration
) -> RowTypeParity:
    exported = scores.logits
    if not bool(torch.isfinite(exported).all()):
        raise ParityError(
            f"{row_type.value} model: some logits are NaN or infinite where the frozen model's are finite. "
            "Look for a division or logarithm in the head that float32 serving rows do not survive."
        )
    frozen, labels = expected.logits, expected.labels
    difference = (exported.double() - frozen.double()).abs()
    # Not against the frozen model's: where a map is steep, the last bit of a logit may move its probability far.
    gap = (scores.probabilities.double() - calibration.reference(exported)).abs()
    auc, log_loss = metrics.auc(labels, exported), metrics.log_loss(labels, exported)
    return RowTypeParity(
        row_type=row_type,
        max_abs_logit_difference=difference.max().item(),
        mean_abs_logit_difference=difference.mean().item(),
        max_logit_error=(difference / frozen.double().abs().clamp(min=1)).max().item(),
        max_probability_error=gap.max().item(),
        auc=auc,
        auc_delta=_delta(auc, metrics.auc(labels, frozen)),
        auc_error=metrics.auc_error(labels, frozen, exported),
        log_loss=log_loss,
        log_loss_delta=_delta(log_loss, metrics.log_loss(labels, frozen)),
    )


def _delta(exported: float | None, frozen: float | None) -> float | None:
    return None if exported is None or frozen is None else exported - frozen


def require(parity: Parity, config: ExportConfig) -> None:
    """Refuse models that deviate too far.

    An AUC may differ by the limit or by what chance makes of so few rows, whichever is more: in a small sample one
    swapped pair moves it by more than the limit. Where rows are enough to tell the limit from chance, it alone counts.

    Raises:
        ParityError: a figure exceeds its limit, or is not a number.
    """
    for label, other in parity.other_labels.items():
        try:
            require(other, config)
        except ParityError as error:
            raise ParityError(f"label {label!r}: {error}") from error
    for model in parity.models:
        _require_probabilities(model)
        limits = [("auc_delta", model.auc_delta, _auc_limit(model, parity, config))]
        limits.append(("log_loss_delta", model.log_loss_delta, config.max_log_loss_delta))
        if model.row_type is RowType.FLOAT32:
            limits = [("logit_error", model.max_logit_error, config.max_logit_error)]
        for name, value, limit in limits:
            if value is not None and not abs(value) <= limit:  # also true for NaN
                configured: float = getattr(config, f"max_{name}")
                raise ParityError(_message(model, name, value, parity.num_rows, limit=limit, configured=configured))


def _require_probabilities(model: RowTypeParity) -> None:
    if not model.max_probability_error <= MAX_PROBABILITY_ERROR:
        raise ParityError(
            f"{model.row_type.value} model: a probability is {model.max_probability_error:.3g} away from what the "
            f"calibration makes of its logit, beyond {MAX_PROBABILITY_ERROR}. Evaluate again with overwrite=true, "
            "which fits it again, or leave it out: export.calibrated=false."
        )


def _auc_limit(model: RowTypeParity, parity: Parity, config: ExportConfig) -> float:
    if min(parity.num_positives, parity.num_rows - parity.num_positives) < 2:
        return 1.0  # one row of a class says nothing about ranking
    return max(config.max_auc_delta, CHANCE * (model.auc_error or 0.0))


def _message(model: RowTypeParity, name: str, value: float, num_rows: int, *, limit: float, configured: float) -> str:
    chance = f" and beyond what chance makes of so few rows ({limit:.3g})" if limit > configured else ""
    text = (
        f"{model.row_type.value} model: {name} is {value:.3g} over {num_rows:,} golden rows, beyond "
        f"export.max_{name}={configured:.3g}{chance} (|logit difference|: max {model.max_abs_logit_difference:.3g}, "
        f"mean {model.mean_abs_logit_difference:.3g}). "
    )
    if model.row_type is RowType.FLOAT32:
        return text + (
            "The exported model computes something else than the trained one: check that both come from one checkpoint "
            "and one ingested data set. If golden logits were computed in bfloat16, recompute them in float32."
        )
    return text + (
        f"Rows of this model are too coarse in {model.row_type.name}: take it out of export.row_types, or raise "
        f"export.max_{name} knowingly."
    )
