"""Parity of models of number labels: by RMSE of predictions, which stand in the label's units."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ParityError
from recsys.core.labels import LabelKind, LabelStatistics
from recsys.core.specs import RowType
from recsys.export.calibration import UNCALIBRATED, in_units
from recsys.export.config import ExportConfig
from recsys.export.gate import require
from recsys.export.parity import Metrics, Parity, Scores, measure

PRICES = LabelStatistics(count=4, mean=-2e6, std=3e4)
UNITS = in_units(PRICES)
METRICS = Metrics(
    auc=lambda *_: pytest.fail("AUC of numbers"),
    log_loss=lambda *_: pytest.fail("log loss of numbers"),
    auc_error=lambda *_: pytest.fail("AUC of numbers"),
    rmse=lambda labels, predictions: ((labels - predictions) ** 2).mean().sqrt().item(),
)


@dataclass(frozen=True, eq=False)
class Rows:
    """What a model said before it was exported."""

    logits: Tensor
    trained_logits: Tensor
    labels: Tensor

    def of(self, task: int) -> "Rows":
        return self


def rows() -> Rows:
    outputs = torch.linspace(-2, 2, 400)
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0))
    return Rows(outputs, outputs + 0.01, (PRICES.mean + PRICES.std * (outputs + noise)).double())


def said(outputs: Tensor) -> Scores:
    return Scores(logits=outputs, probabilities=UNITS.module(outputs))


def parity_of(int8: Scores) -> Parity:
    known = rows()
    scores = {RowType.FLOAT32: said(known.logits), RowType.INT8: int8}
    return measure(scores, known, METRICS, UNITS, kind=LabelKind.NUMBER)


def test_rmse_stands_in_place_of_auc() -> None:
    known, parity = rows(), parity_of(said(rows().logits * 0.9))
    require(parity, ExportConfig(max_rmse_change=0.5))
    float32, int8 = parity.models
    errors = [known.labels - (PRICES.mean + PRICES.std * x.double()) for x in (known.logits, known.logits * 0.9)]
    frozen, narrow = (error.square().mean().sqrt().item() for error in errors)
    assert parity.frozen_rmse == float32.rmse == pytest.approx(frozen, rel=1e-6)
    assert int8.rmse == pytest.approx(narrow, rel=1e-6) and int8.rmse_change == pytest.approx(narrow / frozen - 1)
    assert float32.max_probability_error < 1e-7 and float32.auc is None and float32.log_loss_delta is None
    assert parity.trained_rmse != parity.frozen_rmse and parity.trained_auc is None


def test_a_narrow_model_that_is_further_off_is_refused() -> None:
    with pytest.raises(ParityError, match=r"int8 model: rmse_change is .* beyond export.max_rmse_change=0.001"):
        require(parity_of(said(rows().logits * 0.5)), ExportConfig())


def test_predictions_in_other_units_are_refused() -> None:
    wrong = Scores(logits=rows().logits, probabilities=UNCALIBRATED.module(rows().logits))
    with pytest.raises(ParityError, match=r"int8 model: a prediction is .* away from mean \+ std \* output"):
        require(parity_of(wrong), ExportConfig())


def test_a_frozen_model_that_is_never_wrong_has_no_change() -> None:
    known = rows()
    exact = Rows(known.logits, known.logits, UNITS.reference(known.logits))
    parity = measure({RowType.FLOAT32: said(known.logits)}, exact, METRICS, UNITS, kind=LabelKind.NUMBER)
    assert parity.frozen_rmse == 0 and parity.models[0].rmse_change is None
    require(parity, ExportConfig(row_types=[RowType.FLOAT32]))
