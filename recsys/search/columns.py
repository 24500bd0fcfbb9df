"""Columns of a trained supernet in the order of what they are worth, and the budgets that they fill."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from recsys.core.callback import TrainingSession
from recsys.search.choice import Space
from recsys.search.fit import Column, fit
from recsys.search.masks import masks_in, try_out
from recsys.search.memo import Memo
from recsys.search.method import Found, Supernet
from recsys.search.thresholds import ROWS_AT_ONCE


def ordered_columns(
    space: Space, session: TrainingSession, worth: Callable[[int, int, Tensor], Tensor]
) -> list[Column]:
    """All columns of all blocks by the mean worth of their weights, largest first; of equal ones in order.

    Args:
        space: of the supernet.
        session: of the supernet.
        worth: of (feature, block, rows (R, D) of that block), float32 (R, D).
    """
    found: list[tuple[float, Column]] = []
    for number, (feature, blocks) in enumerate(zip(space.features, space.blocks, strict=True)):
        for place, block in enumerate(blocks):
            ids = torch.arange(block.first, block.first + block.size, device=session.device)
            rows = (session.read_rows(f"table_{feature.name}", part) for part in ids.split(ROWS_AT_ONCE))
            mean = torch.stack([worth(number, place, part).sum(0) for part in rows]).sum(0) / block.size
            found += [(-value, Column(number, place, column)) for column, value in enumerate(mean.tolist())]
    return [column for _, column in sorted(found, key=lambda each: each[0])]


def fill_budgets(
    space: Space, supernet: Supernet, order: Sequence[Column], budgets: Sequence[int], storage: Path
) -> list[Found]:
    """For each budget the first columns of one order that fit, scored in the supernet; arguments as of `find`."""
    masks, memo = masks_in(supernet.session.model, space), Memo(storage, writes=supernet.session.is_main)
    found = []
    for budget in budgets:
        choice = fit(space, order, budget)
        try_out(masks, choice)
        value = memo.get(str(budget), lambda: [supernet.score()])[0]
        found.append(Found(budget_bytes=budget, choice=choice, score=value))
    try_out(masks, None)
    return found
