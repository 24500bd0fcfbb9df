"""Rows of product codes."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def code_at(packed: Tensor, position: int, num_centroids: int) -> int:
    """Code number `position` of a packed buffer, bit by bit from the lowest on."""
    width = 1
    while 2**width < num_centroids:
        width += 1
    stream = int.from_bytes(bytes(packed.tolist()), "little")
    code: int = (stream >> (position * width)) % (1 << width)
    return code


def CodesRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    parts, centroids = params["num_parts"], params["num_centroids"]
    return [part * centroids + code_at(state["codes"], key * parts + part, centroids) for part in range(parts)]
