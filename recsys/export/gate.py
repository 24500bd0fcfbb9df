"""Which differences of an exported model are too large, and what is said of them."""

from recsys.core.errors import ParityError
from recsys.core.specs import RowType
from recsys.export.config import ExportConfig
from recsys.export.parity import Parity, RowTypeParity

MAX_PROBABILITY_ERROR = 1e-6
"""Largest |probability - calibration's of the same logit|: float32 rounds by less."""
CHANCE = 1.96
"""Standard errors within which chance alone leaves 95 of 100 differences."""


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
        limits.append(("rmse_change", model.rmse_change, config.max_rmse_change))
        if model.row_type is RowType.FLOAT32:
            limits = [("logit_error", model.max_logit_error, config.max_logit_error)]
        for name, value, limit in limits:
            if value is not None and not abs(value) <= limit:  # also true for NaN
                configured: float = getattr(config, f"max_{name}")
                raise ParityError(_message(model, name, value, parity.num_rows, limit=limit, configured=configured))


def _require_probabilities(model: RowTypeParity) -> None:
    if model.max_probability_error <= MAX_PROBABILITY_ERROR:  # false for NaN
        return
    if model.rmse is not None:
        raise ParityError(
            f"{model.row_type.value} model: a prediction is {model.max_probability_error:.3g} of itself away from mean "
            f"+ std * output, beyond {MAX_PROBABILITY_ERROR}. Ingest, train and export again with overwrite=true."
        )
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
