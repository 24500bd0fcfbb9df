"""Rows of pruned tables."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def PrunedRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    width = params["embedding_dim"]
    if key >= params["num_rows"]:
        return [0] * width
    block, place = divmod(key, 16)
    stream = "".join(f"{byte:08b}"[::-1] for byte in state["bitmap"][block].tolist())
    rows = []
    for column in range(width):
        bit = place * width + column
        rows.append(int(state["starts"][block]) + stream[:bit].count("1") if stream[bit] == "1" else 0)
    return rows
