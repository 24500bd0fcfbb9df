"""Digits and contraction of `tt_rec`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def DigitsRemap(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int) -> list[int]:
    _, second, third = params["num_rows"]
    return [key // (second * third), key // third % second, key % third]


def TensorTrain(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    (d1, d2, d3), r = params["dims"], params["rank"]
    core1, core2, core3 = rows
    values = [
        sum(
            (core1[j1 * r + a] * core2[(a * d2 + j2) * r + b] * core3[b * d3 + j3] for a in range(r) for b in range(r)),
            torch.zeros(()),
        )
        for j1 in range(d1)
        for j2 in range(d2)
        for j3 in range(d3)
    ]
    return torch.stack(values)
