"""Does the exported model say what the model said before? Measured, written down, and refused where it does not."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from recsys.core.errors import DataError, ParityError
from recsys.core.jsonable import from_json, to_json
from recsys.core.labels import LabelKind
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
    rmse: Metric  # takes number labels (R,) and predictions (R,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """What an exported model says of R rows: logits and probabilities, float32 (R,) each.

    Of number labels these are outputs in standard deviations and predictions, here and below.
    """

    logits: Tensor
    probabilities: Tensor

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
    rmse: float | None  # of number labels, in their units; these have no AUC and no log loss
    rmse_change: float | None  # exported over frozen, minus 1


@dataclass(frozen=True, kw_only=True)
class Parity:
    """All exported models against the frozen one, and that against the trained one.

    Freezing is the embedding method's own loss (codes for rows, narrow rows); most methods freeze without any.
    """

    num_rows: int
    num_positives: int  # rows whose label is 1
    trained_auc: float | None
    trained_log_loss: float | None
    frozen_auc: float | None
    frozen_log_loss: float | None
    trained_rmse: float | None
    frozen_rmse: float | None
    models: tuple[RowTypeParity, ...]

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
    """What the model said before it was exported: float32 logits (R,) and labels (R,)."""

    @property
    def logits(self) -> Tensor:
        """With frozen embeddings."""

    @property
    def trained_logits(self) -> Tensor:
        """As it was trained."""

    @property
    def labels(self) -> Tensor:
        """0 or 1; numbers where the schema says so."""


@dataclass(frozen=True, eq=False, kw_only=True)
class _Judge:
    """The metrics that fit the labels; the others are None."""

    labels: Tensor
    metrics: Metrics
    calibration: ServedCalibration
    numbers: bool

    def auc(self, logits: Tensor) -> float | None:
        return None if self.numbers else self.metrics.auc(self.labels, logits)

    def log_loss(self, logits: Tensor) -> float | None:
        return None if self.numbers else self.metrics.log_loss(self.labels, logits)

    def auc_error(self, frozen: Tensor, exported: Tensor) -> float | None:
        return None if self.numbers else self.metrics.auc_error(self.labels, frozen, exported)

    def rmse(self, outputs: Tensor) -> float | None:
        return self.metrics.rmse(self.labels, self.calibration.reference(outputs)) if self.numbers else None

    def gap(self, scores: Scores) -> float:
        """Largest difference of probabilities from what the calibration makes of the same logits; of predictions
        relative to them, since their units are anybody's.
        """
        # Not against the frozen model's: where a map is steep, the last bit of a logit may move its probability far.
        wanted = self.calibration.reference(scores.logits)
        gap = (scores.probabilities.double() - wanted).abs()
        return (gap / wanted.abs().clamp(min=torch.finfo(torch.float32).tiny) if self.numbers else gap).max().item()


def measure(
    scores: Mapping[RowType, Scores],
    expected: Expected,
    metrics: Metrics,
    calibration: ServedCalibration,
    *,
    kind: LabelKind = LabelKind.CLICK,
) -> Parity:
    """Compare exported logits with those of the model in eager mode, and probabilities with the calibration's own.

    Raises:
        ParityError: an exported logit is NaN or infinite.
    """
    judge = _Judge(labels=expected.labels, metrics=metrics, calibration=calibration, numbers=kind is LabelKind.NUMBER)
    return Parity(
        num_rows=expected.labels.numel(),
        num_positives=int((expected.labels == 1).sum()),
        trained_auc=judge.auc(expected.trained_logits),
        trained_log_loss=judge.log_loss(expected.trained_logits),
        frozen_auc=judge.auc(expected.logits),
        frozen_log_loss=judge.log_loss(expected.logits),
        trained_rmse=judge.rmse(expected.trained_logits),
        frozen_rmse=judge.rmse(expected.logits),
        models=tuple(_compare(row_type, each, expected.logits, judge) for row_type, each in scores.items()),
    )


def _compare(row_type: RowType, scores: Scores, frozen: Tensor, judge: _Judge) -> RowTypeParity:
    exported = scores.logits
    if not bool(torch.isfinite(exported).all()):
        raise ParityError(
            f"{row_type.value} model: some logits are NaN or infinite where the frozen model's are finite. "
            "Look for a division or logarithm in the head that float32 serving rows do not survive."
        )
    difference = (exported.double() - frozen.double()).abs()
    auc, log_loss = judge.auc(exported), judge.log_loss(exported)
    rmse, frozen_rmse = judge.rmse(exported), judge.rmse(frozen)
    return RowTypeParity(
        row_type=row_type,
        max_abs_logit_difference=difference.max().item(),
        mean_abs_logit_difference=difference.mean().item(),
        max_logit_error=(difference / frozen.double().abs().clamp(min=1)).max().item(),
        max_probability_error=judge.gap(scores),
        auc=auc,
        auc_delta=_delta(auc, judge.auc(frozen)),
        auc_error=judge.auc_error(frozen, exported),
        log_loss=log_loss,
        log_loss_delta=_delta(log_loss, judge.log_loss(frozen)),
        rmse=rmse,
        rmse_change=rmse / frozen_rmse - 1 if rmse is not None and frozen_rmse else None,
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
    for model in parity.models:
        _require_probabilities(model)
        limits = [("auc_delta", model.auc_delta, _auc_limit(model, parity, config))]
        limits.append(("log_loss_delta", model.log_loss_delta, config.max_log_loss_delta))
        limits.append(("rmse_change", model.rmse_change, config.max_rmse_change))
        if model.row_type is RowType.FLOAT32:
            limits = [("logit_error", model.max_logit_error, config.max_logit_error)]
        for name, value, limit in limits:
            if value is not None and not abs(value) <= limit:  # also true for NaN
                configured: float = getattr(config, f"max_{name}")
                raise ParityError(_message(model, name, value, parity.num_rows, limit=limit, configured=configured))


def _require_probabilities(model: RowTypeParity) -> None:
    if model.rmse is not None and not model.max_probability_error <= MAX_PROBABILITY_ERROR:
        raise ParityError(
            f"{model.row_type.value} model: a prediction is {model.max_probability_error:.3g} of itself away from mean "
            f"+ std * output, beyond {MAX_PROBABILITY_ERROR}. Ingest, train and export again with overwrite=true."
        )
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
