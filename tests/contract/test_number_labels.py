"""Every yaml of conf/model learns labels that are numbers, and says them in their units when scripted."""

from pathlib import Path

import pytest
import torch

from recsys.core.labels import LabelStatistics
from recsys.export.calibration import in_units
from recsys.train.rating import squared_loss
from tests.contract.test_models import FILES, load
from tests.models.world import build, inputs

PRICES = LabelStatistics(count=6, mean=250.0, std=40.0)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_learns_and_serves_numbers(file: Path) -> None:
    config = load(file)
    head, arguments = build(config, 3), inputs(config, 3)
    labels = PRICES.mean + PRICES.std * torch.linspace(-1.5, 1.5, 6)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.001)
    losses = []
    for _ in range(60):
        loss = squared_loss(head(*arguments), PRICES.standardised(labels))
        optimizer.zero_grad()
        loss.objective.backward()
        optimizer.step()
        losses.append(loss.reported.item())
    assert min(losses[-20:]) < losses[0], "dropout hides other units in every step"
    head.eval()
    outputs = torch.jit.script(head)(*arguments)
    served = torch.jit.script(in_units(PRICES).module)(outputs)
    assert served.dtype == torch.float32
    torch.testing.assert_close(served, (250 + 40 * head(*arguments).double()).float(), rtol=1e-5, atol=1e-3)
