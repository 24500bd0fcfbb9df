"""Rows of `adapt_emb`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tests.ops import splitmix64


def HeadOrHash(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    if 0 <= key < params["num_private"]:
        return [params["first_private"] + key]
    return [params["first_shared"] + splitmix64.row(key, params["salt"], params["num_shared"])]
