"""Rotated product codes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def Rotate(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    side_by_side = torch.cat(rows)
    width = params["embedding_dim"]
    return torch.stack([(side_by_side * state["rotation"][row]).sum() for row in range(width)])
