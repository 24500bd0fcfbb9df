"""Rows replaced by centroids; gradients pass to the row."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.embeddings.reference.codes import code_at


def quantized(row: Tensor, codebook: Tensor, allowed: int) -> Tensor:
    """`row` with every part replaced by the nearest of the first `allowed` centroids, found one by one in float64."""
    num_parts, _, width = codebook.shape
    found = []
    for part in range(num_parts):
        values = row[part * width : (part + 1) * width].detach().double()
        best = min(
            range(allowed), key=lambda code: float((codebook[part, code].detach().double() - values).square().sum())
        )
        found.append(codebook[part, best].detach())
    return torch.cat(found) + (row - row.detach())


def NearestCentroids(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    (row,) = rows
    return quantized(row, state["codebook"], params["codebook"][1])


def HeadTailCentroids(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    (row,) = rows
    allowed = params["codebook"][1] if key < params["num_head"] else params["tail_centroids"]
    return quantized(row, state["codebook"], allowed)


def HeadTailCodesRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    parts, centroids, head = params["num_parts"], params["num_centroids"], params["num_head"]
    rows = []
    for part in range(parts):
        if key < head:
            code = code_at(state["head"], key * parts + part, centroids)
        else:
            code = code_at(state["tail"], (key - head) * parts + part, params["tail_centroids"])
        rows.append(part * centroids + code)
    return rows
