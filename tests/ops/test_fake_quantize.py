"""Rounding to a grid: values and gradients worked out by hand, and that steps are what float16 stores."""

import math

import pytest
import torch

from recsys.ops.fake_quantize import fake_quantize, grid_codes, learned_step


def test_values_codes_and_gradients_by_hand() -> None:
    # 2 bits: codes -2..1; step 0.5: ratios -5, -1.5, -0.6, 0.5, 0.75, 2
    values = torch.tensor([[-2.5, -0.75, -0.3, 0.25, 0.375, 1.0]], requires_grad=True)
    step = torch.tensor([0.5], requires_grad=True)
    out = fake_quantize(values, step, 2)
    assert out.tolist() == [[-1.0, -1.0, -0.5, 0.0, 0.5, 0.5]]  # halves go to the even code
    assert grid_codes(values.detach(), step.detach(), 2).tolist() == [[0, 0, 1, 2, 3, 3]]
    out.sum().backward()
    assert values.grad is not None and step.grad is not None
    assert values.grad.tolist() == [[0, 1, 1, 1, 1, 0]]
    # code - ratio: beyond -2; -2 + 1.5; -1 + 0.6; 0 - 0.5; 1 - 0.75; beyond 1
    assert step.grad.item() == pytest.approx(-2 - 0.5 - 0.4 - 0.5 + 0.25 + 1, abs=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounded_values_are_codes_times_step_to_the_last_bit(bits: int) -> None:
    values = torch.randn((1000, 3), generator=torch.Generator().manual_seed(bits))
    step = torch.tensor([0.01]).half().float()
    codes = grid_codes(values, step, bits)
    assert int(codes.min()) >= 0 and int(codes.max()) < 2**bits
    assert torch.equal(fake_quantize(values, step, bits), (codes - 2 ** (bits - 1)).float() * step)
    inside = (codes > 0) & (codes < 2**bits - 1)
    assert ((fake_quantize(values, step, bits) - values).abs()[inside] <= step / 2 * 1.0001).all()


def test_learned_step_by_hand() -> None:
    log_ratio = torch.tensor([math.log(2.0)], requires_grad=True)
    step = learned_step(0.01, log_ratio, dim=16, bits=8)
    assert step.item() == 0.0200042724609375  # the float16 next to 0.02
    step.backward()
    assert log_ratio.grad is not None
    assert log_ratio.grad.item() == pytest.approx(0.02 / math.sqrt(16 * 127), rel=1e-5)


@pytest.mark.parametrize("log_ratio", [-100.0, -7.0, 0.0, 3.0, 100.0])
def test_steps_are_exact_in_float16_and_above_zero(log_ratio: float) -> None:
    step = learned_step(0.01, torch.tensor([log_ratio]), dim=4, bits=4)
    assert torch.equal(step.half().float(), step) and 2.0**-14 <= step.item() <= 256
    bias = -8.0 * step
    assert torch.equal(bias.half().float(), bias)
