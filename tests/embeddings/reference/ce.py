"""Rows of `ce`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tests.ops import splitmix64


def ChunkRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    num_rows = params["num_rows"]
    return [
        start + splitmix64.row(key, salt, num_rows)
        for salt, start in zip(params["salts"], params["starts"], strict=True)
    ]
