"""Rows of `hash`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tests.ops import splitmix64


def HashRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    return [splitmix64.row(key, salt, params["num_rows"]) for salt in params["salts"]]
