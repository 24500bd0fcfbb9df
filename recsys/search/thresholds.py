"""Rows above a threshold, with a gradient for it: the long-tailed estimator (Liu et al., arXiv:2005.06870)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys.core.callback import TrainingSession
from recsys.search.choice import Space

ROWS_AT_ONCE = 1 << 18


class _LongTailedStep(torch.autograd.Function):
    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        (x,) = context.saved_tensors  # type: ignore[attr-defined]
        size = x.abs()
        slope = torch.where(size <= 0.4, 2 - 4 * size, 0.4)
        return gradient * torch.where(size <= 1, slope, 0.0)


def step_function(x: Tensor) -> Tensor:
    """1 where x > 0, else 0; backward as if the slope were 2 - 4|x| up to 0.4, then 0.4 up to 1, and 0 beyond."""
    stepped: Tensor = _LongTailedStep.apply(x)  # type: ignore[no-untyped-call]
    return stepped


def row_margins(session: TrainingSession, space: Space, thresholds: Sequence[float]) -> list[Tensor]:
    """L1 norm of each row of each feature's table, less its threshold; float32, on the CPU, equal on all ranks."""
    margins = []
    for feature, threshold in zip(space.features, thresholds, strict=True):
        ids = torch.arange(feature.num_embeddings or 0, device=session.device)
        parts = [
            session.read_rows(f"table_{feature.name}", rows).abs().sum(1).cpu() for rows in ids.split(ROWS_AT_ONCE)
        ]
        margins.append(torch.cat(parts) - threshold)
    return margins
