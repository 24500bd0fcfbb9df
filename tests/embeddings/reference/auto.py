"""Rows of `auto`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tests.ops import splitmix64


def KnownOrRare(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    rows = params["rows"]
    if key >= params["num_known"]:
        key = 0
    if 0 <= key < rows["num_private"]:
        return [rows["first_private"] + key]
    return [rows["first_shared"] + splitmix64.row(key, rows["salt"], rows["num_shared"])]
