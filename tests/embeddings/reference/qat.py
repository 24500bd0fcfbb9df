"""Rows rounded to a grid, with the gradients written out."""

import math
import struct
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def half_of(value: float) -> float:
    """`value` rounded to float16."""
    stored: float = struct.unpack("e", struct.pack("e", value))[0]
    return stored


def on_grid(row: Tensor, log_ratio: Tensor, initial: float, bits: int) -> Tensor:
    """`row` rounded to multiples of float16(initial * exp(log_ratio)); a value's gradients are those of its slopes.

    LSQ, equation 3: to the value 1 on the grid and 0 beyond; to the step code - ratio on the grid, the code beyond.
    """
    real = initial * math.exp(float(log_ratio.detach()))
    step = half_of(real)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    factor = 1 / math.sqrt(len(row) * max(high, 1))
    values = []
    for value in row:
        ratio = float(value.detach() / torch.tensor(step))
        code = min(max(round(ratio), low), high)  # Python rounds halves to even, as torch does
        inside = low <= ratio <= high
        slope = code - ratio if inside else code
        line = value * float(inside) + log_ratio.reshape(()) * (slope * real * factor)
        values.append(code * step + (line - line.detach()))
    return torch.stack(values)


def FakeQuantize(params: Mapping[str, Any], state: Mapping[str, Tensor], key: int, rows: list[Tensor]) -> Tensor:
    (row,) = rows
    return on_grid(row, state["log_ratio"], params["step"], params["bits"])
