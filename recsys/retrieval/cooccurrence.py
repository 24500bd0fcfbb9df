"""How many users two items share, a chunk of items at a time: never a product of all pairs of entries."""

from collections.abc import Iterator

import torch
from torch import Tensor

from recsys.core.interactions import Interactions
from recsys.core.progress import ProgressBar
from recsys.ops.propagation import SparseRows

ITEMS_AT_ONCE = 512


def counts_in_chunks(interactions: Interactions, title: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of R^T R, R the users' items.

    Args:
        interactions: M items.
        title: of the progress bar.

    Yields:
        (items int64 (n,), ascending over all; counts float32 (n, M)); an item shares its own users with itself.
    """
    users, items = interactions.users, interactions.items
    by_item = SparseRows.of(items, users, torch.ones_like(users, dtype=torch.float32), num_rows=interactions.num_items)
    with ProgressBar(title, total=interactions.num_items) as bar:
        for chunk in torch.arange(interactions.num_items, device=users.device).split(ITEMS_AT_ONCE):
            first = int(chunk[0])
            start, end = by_item.offsets[first], by_item.offsets[first + len(chunk)]
            met_by = by_item.columns[start:end].long()
            own = torch.repeat_interleave(chunk - first, by_item.offsets[first : first + len(chunk) + 1].diff())
            marked = torch.zeros(interactions.num_users, len(chunk), device=users.device)
            marked[met_by, own] = 1
            yield chunk, by_item.product(marked).t()
            bar.advance(len(chunk))
