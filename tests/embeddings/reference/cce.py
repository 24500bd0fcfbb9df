"""Rows and sums of `cce`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.ops import splitmix64


def ClusteredRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    num_rows, num_hashed, chunks = params["num_rows"], params["num_hashed"], len(params["salts"]) // 2
    width = max(1, (num_rows - 1).bit_length())
    packed = int.from_bytes(bytes(state["pointers"].tolist()), "little")
    pointers = [(packed >> ((key * chunks + i) * width)) % 2**width for i in range(chunks)]
    hashes = [splitmix64.row(key, salt, num_hashed) for salt in state["salts"].tolist()]
    halves = ((pointers, num_rows), (hashes, num_hashed))
    return [i * size + row for half, size in halves for i, row in enumerate(half)]


def PairSums(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    half = len(rows) // 2
    return torch.cat([rows[i] + rows[half + i] for i in range(half)])
