"""Rows and embeddings of `mde` with blocks."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tests.embeddings.reference import projection


def block_of(sizes: list[int], key: int) -> tuple[int, int]:
    """(which block, place in it)."""
    for number, size in enumerate(sizes):
        if key < size:
            return number, key
        key -= size
    raise AssertionError("beyond the last block")


def PopularityRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    number, place = block_of(params["sizes"], key)
    return [place if block == number else 0 for block in range(len(params["sizes"]))]


def PopularityProjection(
    params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]
) -> Tensor:
    number, _ = block_of(params["sizes"], key)
    if params["widths"][number] == params["embedding_dim"]:
        return rows[number]
    return projection.Projection({}, {"weight": state[f"projections.{number}.weight"]}, key, [rows[number]])
