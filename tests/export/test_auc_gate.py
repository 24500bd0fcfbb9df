"""How far an AUC may move: the limit, or what chance makes of the rows that there are."""

import pytest
import torch
from torch import Tensor

from pipelines.export import METRICS
from recsys.core.errors import ParityError
from recsys.core.specs import RowType
from recsys.export.bundle import Golden
from recsys.export.calibration import UNCALIBRATED
from recsys.export.config import ExportConfig
from recsys.export.gate import require
from recsys.export.parity import Parity, Scores, measure

LIMITS = ExportConfig(max_log_loss_delta=1.0)


def rows(num_rows: int) -> tuple[Tensor, Tensor]:
    """(Labels, a third of them 1; logits that order them well)."""
    generator = torch.Generator().manual_seed(num_rows)
    labels = (torch.arange(num_rows) % 3 == 0).float()
    return labels, labels + torch.randn(num_rows, generator=generator)


def parity_of(labels: Tensor, frozen: Tensor, exported: Tensor) -> Parity:
    golden = Golden(features={}, logits=frozen, trained_logits=frozen, labels=labels)
    scores = {RowType.INT8: Scores(logits=exported, probabilities=torch.sigmoid(exported))}
    return measure(scores, golden, METRICS, UNCALIBRATED)


def swapped(labels: Tensor, logits: Tensor) -> Tensor:
    """The scores with one negative just below a positive lifted just above it."""
    order = logits.argsort()
    low = next(i for i in range(len(order) - 1) if labels[order[i]] == 0 and labels[order[i + 1]] == 1)
    exported = logits.clone()
    exported[order[[low, low + 1]]] = logits[order[[low + 1, low]]]
    return exported


@pytest.mark.parametrize("num_rows", [12, 50, 300, 20_000])
def test_one_swapped_pair_is_never_too_much(num_rows: int) -> None:
    labels, logits = rows(num_rows)
    parity = parity_of(labels, logits, swapped(labels, logits))
    delta = parity.of(RowType.INT8).auc_delta
    positives = parity.num_positives
    assert delta == pytest.approx(-1 / (positives * (num_rows - positives)))
    require(parity, LIMITS)


@pytest.mark.parametrize("num_rows", [300, 20_000])
def test_rounding_as_coarse_as_that_of_bytes_passes(num_rows: int) -> None:
    labels, logits = rows(num_rows)
    noise = torch.randn(num_rows, generator=torch.Generator().manual_seed(1)) * 0.005
    require(parity_of(labels, logits, logits + noise), LIMITS)


@pytest.mark.parametrize(("num_rows", "noise"), [(300, 2.0), (20_000, 0.3)])
def test_a_ruined_model_is_refused(num_rows: int, noise: float) -> None:
    labels, logits = rows(num_rows)
    ruined = logits + noise * torch.randn(num_rows, generator=torch.Generator().manual_seed(1))
    with pytest.raises(ParityError, match=r"int8 model: auc_delta is -.* beyond export.max_auc_delta=0.0005"):
        require(parity_of(labels, logits, ruined), LIMITS)


def test_with_enough_rows_the_limit_alone_counts() -> None:
    """Positives lifted a little: the AUC moves by just more than the limit, and hardly varies."""
    labels, logits = rows(20_000)
    for step, refused in ((0.001, False), (0.005, True)):
        parity = parity_of(labels, logits, logits - step * labels)
        model = parity.of(RowType.INT8)
        assert model.auc_error is not None and 1.96 * model.auc_error < LIMITS.max_auc_delta
        assert (abs(model.auc_delta or 0) > LIMITS.max_auc_delta) is refused
        if refused:
            with pytest.raises(ParityError, match=r"beyond export.max_auc_delta=0.0005 \(\|logit"):
                require(parity, LIMITS)
        else:
            require(parity, LIMITS)


def test_a_reversed_order_that_does_not_vary_is_refused() -> None:
    labels = torch.tensor([0.0, 0, 0, 1, 1, 1])
    with pytest.raises(ParityError, match="auc_delta is -1"):
        require(parity_of(labels, labels, -labels), LIMITS)


def test_one_positive_says_nothing_of_ranking() -> None:
    labels = torch.tensor([0.0, 0, 0, 0, 0, 1])
    require(parity_of(labels, torch.arange(6.0), torch.tensor([0.0, 1, 2, 3, 5, 4])), LIMITS)
