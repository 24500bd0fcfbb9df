"""Combiners without weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def Only(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    (only,) = rows
    return only


def Sum(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    return torch.stack(rows).sum(0)


def Mean(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    return torch.stack(rows).mean(0)


def Product(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    return torch.stack(rows).prod(0)


def Concat(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    return torch.cat(rows)
