"""Loops over Python floats that the references of several models share."""

import math

from torch import Tensor


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def flat(rows: list[list[float]]) -> list[float]:
    return [value for row in rows for value in row]


def pairs(count: int) -> list[tuple[int, int]]:
    """(0, 1), (0, 2), …, (count - 2, count - 1)."""
    return [(i, j) for i in range(count) for j in range(i + 1, count)]


def affine(state: dict[str, Tensor], prefix: str, row: list[float]) -> list[float]:
    """A linear layer, unit by unit; its bias is optional."""
    weight = state[f"{prefix}.weight"].tolist()
    bias = state[f"{prefix}.bias"].tolist() if f"{prefix}.bias" in state else [0.0] * len(weight)
    return [dot(ws, row) + b for ws, b in zip(weight, bias, strict=True)]


def batch_norm(state: dict[str, Tensor], prefix: str, row: list[float]) -> list[float]:
    """Batch normalisation in evaluation: with the moments that training stored."""
    numbers = [state[f"{prefix}.{name}"].tolist() for name in ("running_mean", "running_var", "weight", "bias")]
    return [
        (x - mean) / math.sqrt(variance + 1e-5) * scale + shift
        for x, mean, variance, scale, shift in zip(row, *numbers, strict=True)
    ]


def perceptron(state: dict[str, Tensor], prefix: str, row: list[float]) -> list[float]:
    """The hidden layers of the `MLP` called `prefix`: each linear, normalised where the state says so, ReLU."""
    positions = {int(key[len(prefix) :].split(".")[2]) for key in state if key.startswith(f"{prefix}.layers.")}
    normalised = {position for position in positions if f"{prefix}.layers.{position}.running_mean" in state}
    for position in sorted(positions - normalised):
        row = affine(state, f"{prefix}.layers.{position}", row)
        if position + 1 in normalised:
            row = batch_norm(state, f"{prefix}.layers.{position + 1}", row)
        row = [max(0.0, value) for value in row]
    return row


def scaled_rows(state: dict[str, Tensor], name: str, factors: list[float]) -> list[list[float]]:
    """Row k of a matrix of the state times factor k; none where there are no factors."""
    rows = state[name].tolist() if factors else []
    return [[factor * value for value in row] for factor, row in zip(factors, rows, strict=True)]
