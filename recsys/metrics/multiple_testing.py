"""Many tests at once: p-values adjusted, so that comparing them with the level of one test stays honest."""

import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.metrics.checks import refuse_rows


def holm(p_values: Tensor) -> Tensor:
    """Adjust so that the chance of even one false finding among all tests stays below the level.

    Args:
        p_values: (M,), each in [0, 1], of tests that may depend on each other in any way. Leave out tests without a
            value: they found nothing, and were not made.
    Returns:
        float64, (M,), in the order given: reject where at or below the level.
    Raises:
        DataError: not one-dimensional, or a p-value is NaN or outside [0, 1].
    Source: Holm, 1979, "A simple sequentially rejective multiple test procedure".
    """
    ascending, order = _sorted(p_values)
    left = torch.arange(ascending.numel(), 0, -1, device=ascending.device)
    return _put_back((ascending * left).cummax(0).values, order)


def benjamini_hochberg(p_values: Tensor) -> Tensor:
    """Adjust so that the expected share of false findings among all findings stays below the level.

    Args:
        p_values: (M,), as for `holm`, of tests that are independent or depend on each other positively.
    Returns:
        float64, (M,), in the order given: reject where at or below the level. Never above `holm`.
    Raises:
        DataError: as `holm`.
    Source: Benjamini and Hochberg, 1995, "Controlling the false discovery rate"; dependence: Benjamini and Yekutieli,
        2001.
    """
    ascending, order = _sorted(p_values)
    scaled = ascending * ascending.numel() / torch.arange(1, ascending.numel() + 1, device=ascending.device)
    return _put_back(scaled.flip(0).cummin(0).values.flip(0), order)


def _sorted(p_values: Tensor) -> tuple[Tensor, Tensor]:
    if p_values.dim() != 1:
        raise DataError(f"p-values have shape {tuple(p_values.shape)}: pass one dimension, one value per test.")
    wrong = ~((p_values >= 0) & (p_values <= 1))
    refuse_rows(wrong, "p-values", "NaN or outside [0, 1]", "Leave out tests without a value.")
    return torch.sort(p_values.double())


def _put_back(adjusted: Tensor, order: Tensor) -> Tensor:
    return torch.empty_like(adjusted).scatter_(0, order, adjusted.clamp(max=1.0))
