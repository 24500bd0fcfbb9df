"""Rows of `quotient_remainder`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def QuotientRemainderRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    return list(divmod(key, params["num_remainders"]))


def MixedRadixRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    digits, weight = [], 1
    for radix in params["radices"]:
        digits.append(key // weight % radix)
        weight *= radix
    return digits
