"""Blocks that models share: dropout's share, mean, gradient and scripting."""

import pytest
import torch

from recsys.models.layers import Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_zeroes_its_share_and_keeps_the_mean(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    inputs = torch.ones(1001, 999, dtype=dtype)  # not a multiple of the four values a draw serves
    outputs = Dropout(0.4)(inputs).float()
    kept = outputs > 0
    assert kept.float().mean().item() == pytest.approx(0.6, abs=2e-3)  # four standard errors
    by_lane = kept.flatten()[: 1001 * 999 // 4 * 4].view(-1, 4).float().mean(0)
    assert by_lane.tolist() == pytest.approx([0.6] * 4, abs=4e-3)
    assert outputs.max().item() == outputs[kept].min().item() == pytest.approx(1 / 0.6, rel=1e-2)


def test_dropout_does_nothing_in_evaluation_and_scripts() -> None:
    dropout = Dropout(0.5).eval()
    inputs = torch.randn(5, 3)
    assert torch.equal(dropout(inputs), inputs)
    assert torch.equal(torch.jit.script(dropout)(inputs), inputs)


def test_dropout_passes_the_gradient_of_what_it_kept() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(64, 8, requires_grad=True)
    outputs = Dropout(0.25)(inputs)
    outputs.sum().backward()
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad, (outputs != 0).float() / 0.75)
