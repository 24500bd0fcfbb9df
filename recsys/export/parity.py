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
from recsys.core.specs import RowType
from recsys.export.border import BorderTensor, count_rows, slice_rows
from recsys.export.config import ExportConfig

PARITY_NAME = "parity.json"
SCORE_ROWS = 4096  # rows per call while comparing


Metric = Callable[[Tensor, Tensor], float | None]
"""Takes labels (R,) and logits (R,); None means undefined, as AUC is where all labels are equal."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The metrics that the caller evaluates with."""

    auc: Metric
    log_loss: Metric


@dataclass(frozen=True, kw_only=True)
class RowTypeParity:
    """One exported model against the frozen one in eager mode, over the same rows."""

    row_type: RowType
    max_abs_logit_difference: float
    mean_abs_logit_difference: float
    max_logit_error: float  # largest |difference| / max(1, |frozen logit|)
    auc: float | None  # None: undefined on these rows
    auc_delta: float | None  # exported - frozen
    log_loss: float | None
    log_loss_delta: float | None  # exported - frozen, nats


@dataclass(frozen=True, kw_only=True)
class Parity:
    """All exported models against the frozen one, and that against the trained one.

    Freezing is the embedding method's own loss (codes for rows, narrow rows); most methods freeze without any.
    """

    num_rows: int
    trained_auc: float | None
    trained_log_loss: float | None
    frozen_auc: float | None
    frozen_log_loss: float | None
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


def score(model: torch.jit.ScriptModule, features: dict[str, Tensor], tensors: Sequence[BorderTensor]) -> Tensor:
    """Logits of all rows, float32 (R,), computed in slices so that memory stays bounded."""
    num_rows = count_rows(features, tensors)
    with torch.inference_mode():
        parts = [
            model(slice_rows(features, tensors, start=start, stop=min(start + SCORE_ROWS, num_rows)))[0]
            for start in range(0, num_rows, SCORE_ROWS)
        ]
    return torch.cat(parts)


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
        """0 or 1."""


def measure(logits: Mapping[RowType, Tensor], expected: Expected, metrics: Metrics) -> Parity:
    """Compare exported logits (R,) with those of the model in eager mode.

    Raises:
        ParityError: an exported logit is NaN or infinite.
    """
    frozen, labels = expected.logits, expected.labels
    return Parity(
        num_rows=labels.numel(),
        trained_auc=metrics.auc(labels, expected.trained_logits),
        trained_log_loss=metrics.log_loss(labels, expected.trained_logits),
        frozen_auc=metrics.auc(labels, frozen),
        frozen_log_loss=metrics.log_loss(labels, frozen),
        models=tuple(_compare(row_type, exported, expected, metrics) for row_type, exported in logits.items()),
    )


def _compare(row_type: RowType, exported: Tensor, expected: Expected, metrics: Metrics) -> RowTypeParity:
    if not bool(torch.isfinite(exported).all()):
        raise ParityError(
            f"{row_type.value} model: some logits are NaN or infinite where the frozen model's are finite. "
            "Look for a division or logarithm in the head that float32 serving rows do not survive."
        )
    frozen, labels = expected.logits, expected.labels
    difference = (exported.double() - frozen.double()).abs()
    auc, log_loss = metrics.auc(labels, exported), metrics.log_loss(labels, exported)
    return RowTypeParity(
        row_type=row_type,
        max_abs_logit_difference=difference.max().item(),
        mean_abs_logit_difference=difference.mean().item(),
        max_logit_error=(difference / frozen.double().abs().clamp(min=1)).max().item(),
        auc=auc,
        auc_delta=_delta(auc, metrics.auc(labels, frozen)),
        log_loss=log_loss,
        log_loss_delta=_delta(log_loss, metrics.log_loss(labels, frozen)),
    )


def _delta(exported: float | None, frozen: float | None) -> float | None:
    return None if exported is None or frozen is None else exported - frozen


def require(parity: Parity, config: ExportConfig) -> None:
    """Refuse models that deviate too far.

    Raises:
        ParityError: a figure exceeds its limit, or is not a number.
    """
    for model in parity.models:
        limits = [("auc_delta", model.auc_delta, config.max_auc_delta)]
        limits.append(("log_loss_delta", model.log_loss_delta, config.max_log_loss_delta))
        if model.row_type is RowType.FLOAT32:
            limits = [("logit_error", model.max_logit_error, config.max_logit_error)]
        for name, value, limit in limits:
            if value is not None and not abs(value) <= limit:  # also true for NaN
                raise ParityError(_message(model, name, value, limit, parity.num_rows))


def _message(model: RowTypeParity, name: str, value: float, limit: float, num_rows: int) -> str:
    text = (
        f"{model.row_type.value} model: {name} is {value:.3g} over {num_rows:,} golden rows, beyond "
        f"export.max_{name}={limit:.3g} (|logit difference|: max {model.max_abs_logit_difference:.3g}, "
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
