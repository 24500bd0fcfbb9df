"""Combiners without weights. Linear ones commute with sum-pooling and are applied after it."""

import torch
from torch import Tensor

from recsys.core.modules import Combiner


def added_up(rows: list[Tensor]) -> Tensor:
    """Element-wise sum of tensors of one shape; scriptable."""
    total = rows[0]
    for row in rows[1:]:
        total = total + row
    return total


class Only(Combiner):
    """One look-up: its row is the embedding."""

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return `rows[0]`."""
        return rows[0]


class Sum(Combiner):
    """Sum of all rows; equal widths."""

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return the element-wise sum."""
        return added_up(rows)


class Mean(Combiner):
    """Mean of all rows; equal widths. An id whose look-ups all read one row has that row, and learns as with `Only`."""

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return the element-wise mean."""
        return added_up(rows) / len(rows)


class Concat(Combiner):
    """Rows side by side."""

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return the concatenation along the last dimension."""
        return torch.cat(rows, dim=-1)


class Product(Combiner):
    """Element-wise product of all rows; equal widths. Not linear: multi-valued features combine per id, then pool."""

    linear: bool = False

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return the element-wise product."""
        total = rows[0]
        for row in rows[1:]:
            total = total * row
        return total
