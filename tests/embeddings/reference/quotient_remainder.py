"""Rows of `quotient_remainder`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def QuotientRemainderRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    return list(divmod(key, params["num_remainders"]))
