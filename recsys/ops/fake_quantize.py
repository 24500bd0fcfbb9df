"""Values on a grid of 2**bits steps around zero, with gradients for values and step (LSQ, arXiv:1902.08153)."""

import math

import torch
from torch import Tensor


def fake_quantize(values: Tensor, step: Tensor, bits: int) -> Tensor:
    """Round values to multiples of a step.

    Args:
        values: float32, shape (N, d).
        step: float32, above 0, broadcastable to `values`.
        bits: codes lie in [-2**(bits - 1), 2**(bits - 1)).
    Returns:
        code * step, shape (N, d). A value's gradient passes where it lies on the grid and is 0 beyond; that of the step
        is code - value / step on the grid, and the outermost code beyond (LSQ, equation 3).
    """
    highest = float((1 << (bits - 1)) - 1)
    clipped = (values / step).clamp(-highest - 1, highest)
    # Rounding adds a constant as far as gradients are concerned; written so that the sum is the code to the last bit.
    return (clipped.round().detach() + (clipped - clipped.detach())) * step


def grid_codes(values: Tensor, step: Tensor, bits: int) -> Tensor:
    """The codes that `fake_quantize` rounds to, int64, moved to [0, 2**bits): value = (code - 2**(bits - 1)) * step."""
    half = 1 << (bits - 1)
    return (values / step).clamp(float(-half), float(half - 1)).round().to(torch.int64) + half


def learned_step(initial: float, log_ratio: Tensor, dim: int, bits: int) -> Tensor:
    """A step that stays positive while it is learned: initial * exp(log_ratio), as float16 stores it.

    Its gradient is divided by sqrt(dim * (2**(bits - 1) - 1)), as ALPT and LSQ divide it, so that steps move as slowly,
    measured by themselves, as values do. Both also divide by the batch size. Left out here: it would only rescale
    all steps' gradients, and two ranks with half a batch each would not compute what one does.

    Args:
        initial: the step where `log_ratio` is 0.
        log_ratio: float32, any shape.
        dim: values of a row.
        bits: of a code.
    Returns:
        float32, shape of `log_ratio`, exact in float16, at least 2**-14.
    """
    factor = 1 / math.sqrt(dim * max((1 << (bits - 1)) - 1, 1))
    slowed = (log_ratio * factor) + (log_ratio * (1 - factor)).detach()
    # float64, because exp in float32 differs in its last bit between devices and batch sizes, and where float16's
    # rounding turns, that would be another step. Clamped, because infinity minus itself would be no number below.
    step = initial * slowed.double().clamp(-40.0, 40.0).exp()
    # Above float16's subnormals, so that its rounding stays below 1/2048 of the step; far below its largest value.
    stored = step.detach().clamp(2.0**-14, 256.0).half().float()
    return stored + (step - step.detach()).float()
