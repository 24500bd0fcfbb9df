"""`hash_weighted`: rows and combination."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.ops import splitmix64


def HashWeightedRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    return [key, *(splitmix64.row(key, salt, params["num_rows"]) for salt in params["salts"])]


def WeightedSum(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    offsets, *components = rows
    return torch.stack([row + offset * row for offset, row in zip(offsets, components, strict=True)]).sum(0)
