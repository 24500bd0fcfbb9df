"""`memcom`: rows and combination."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def MemComRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    return [key - params["num_shared"] * (key // params["num_shared"]), key]


def ScaledRow(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    shared, scalars = rows
    values = [value + value * scalars[0] for value in shared]
    return torch.stack([value + scalars[1] for value in values] if params["bias"] else values)
