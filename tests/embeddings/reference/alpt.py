"""Rows rounded to grids of their own."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tests.embeddings.reference.qat import on_grid


def IdentityTwice(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    return [key, key]


def FakeQuantizeRows(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    row, learned = rows
    return on_grid(row, learned * params["step_rate"], params["step"], params["bits"])
