"""Rows of `double_hash`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tests.ops import splitmix64


def DoubleHashRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    if 0 <= key < params["num_heads"]:
        own = params["first_head"] + key * params["rows_per_head"]
        return [own + min(lookup, params["rows_per_head"] - 1) for lookup in range(len(params["salts"]))]
    first, number = params["shared"]
    return [first + splitmix64.row(key, salt, number) for salt in params["salts"]]
