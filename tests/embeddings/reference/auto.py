"""Rows of `auto`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tests.embeddings.reference.double_hash import DoubleHashRemap


def KnownOrRare(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    return DoubleHashRemap(params["rows"], state, key if key < params["num_known"] else 0)
