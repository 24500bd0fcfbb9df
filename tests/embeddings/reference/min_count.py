"""Rows of `min_count`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def KeepFirst(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    return [key if key < params["num_kept"] else 0]
