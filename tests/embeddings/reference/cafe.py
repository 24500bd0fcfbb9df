"""Rows of `cafe`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tests.ops import splitmix64


def HotRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    for hot, row in zip(state["hot_ids"].tolist(), state["hot_rows"].tolist(), strict=True):
        if hot == key and row >= 0:
            return [params["first_private"] + row]
    return [splitmix64.row(key, params["salt"], params["num_shared"])]


def OwnOrShared(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    return rows[0]
