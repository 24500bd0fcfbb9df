"""What `narrow` and `mde` make of narrow rows."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def Projection(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    (row,) = rows
    products = [value * weights for value, weights in zip(row, state["weight"], strict=True)]
    return torch.stack(products).sum(0)
