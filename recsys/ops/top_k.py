"""The best columns of rows of scores, in one order whatever the machine; scriptable."""

import torch
from torch import Tensor


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best columns of each row by score, then by column; scriptable.

    Args:
        scores: float32 (B, M), -inf for what may not be listed, never NaN; column 0 is the unknown item.
        k: 1 or more; lists are shorter where M is.

    Returns:
        (items int64 (B, min(k, M)), scores of these); item 0 with score -inf at places that nothing may take.
    """
    length = min(k, scores.size(1))
    # One more than asked for tells whether the last place is tied, which topk would settle in any way.
    values, items = torch.topk(scores, min(length + 1, scores.size(1)), dim=1)
    if values.size(1) > length:
        tied = (values[:, length - 1] == values[:, length]) & (values[:, length] > float("-inf"))
        rows = tied.nonzero().squeeze(1)
        if rows.numel() > 0:
            items[rows] = torch.argsort(scores[rows], dim=1, descending=True, stable=True)[:, : items.size(1)]
            values = scores.gather(1, items)
    items, by_id = torch.sort(items[:, :length], dim=1)
    values, order = torch.sort(values[:, :length].gather(1, by_id), dim=1, descending=True, stable=True)
    items = items.gather(1, order)
    return torch.where(values == float("-inf"), torch.zeros_like(items), items), values


def hide(scores: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
    """Set the unknown item's scores and those of some items of each row to -inf, in place; scriptable.

    Args:
        scores: (B, M).
        items: int64 (H,), of all rows, one after the other.
        offsets: int64 (B + 1,).
    """
    rows = torch.repeat_interleave(torch.arange(scores.size(0), device=scores.device), offsets[1:] - offsets[:-1])
    scores[:, 0] = float("-inf")
    scores[rows, items] = float("-inf")
    return scores
