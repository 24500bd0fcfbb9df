"""Rows and blocks of `robe`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.ops import splitmix64


def BlockRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    num_rows, size = params["num_rows"], params["block_size"]
    first = [splitmix64.row(key, salt, num_rows * size) // size for salt in params["salts"]]
    return first + [(row + 1) % num_rows for row in first]


def Blocks(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    salts, size = params["salts"], params["block_size"]
    values: list[Tensor] = []
    for number, salt in enumerate(salts):
        sign = -1 if params["sign_salts"] and splitmix64.mix(key + params["sign_salts"][number]) % 2 else 1
        start = splitmix64.row(key, salt, size)
        for place in range(start, start + size):
            row = rows[number] if place < size else rows[number + len(salts)]
            values.append(sign * row[place % size])
    return torch.stack(values)[: params["embedding_dim"]]
