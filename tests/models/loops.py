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


def activated(state: dict[str, Tensor], prefix: str, row: list[float]) -> list[float]:
    """The activation that the state says: Dice has an alpha, PReLU slopes, ReLU nothing."""
    if f"{prefix}.alpha" in state:
        numbers = [state[f"{prefix}.{name}"].tolist() for name in ("running_mean", "running_var", "alpha")]
        shares = [
            1 / (1 + math.exp((mean - x) / math.sqrt(variance + 1e-9)))
            for x, mean, variance in zip(row, *numbers[:2], strict=True)
        ]
        return [p * x + alpha * (1 - p) * x for x, p, alpha in zip(row, shares, numbers[2], strict=True)]
    if f"{prefix}.weight" in state:
        return [x if x > 0 else slope * x for x, slope in zip(row, state[f"{prefix}.weight"].tolist(), strict=True)]
    return [max(0.0, value) for value in row]


def perceptron(state: dict[str, Tensor], prefix: str, row: list[float]) -> list[float]:
    """The hidden layers of the `MLP` called `prefix`: each linear, normalised where the state says so, activated."""
    matrices = [key for key, value in state.items() if key.startswith(f"{prefix}.layers.") and value.dim() == 2]
    for position in sorted(int(key[len(prefix) :].split(".")[2]) for key in matrices):
        row = affine(state, f"{prefix}.layers.{position}", row)
        following = f"{prefix}.layers.{position + 1}"
        if f"{following}.running_mean" in state and f"{following}.weight" in state:
            row = batch_norm(state, following, row)
            following = f"{prefix}.layers.{position + 2}"
        row = activated(state, following, row)
    return row


def softmax(scores: list[float]) -> list[float]:
    exponentials = [math.exp(score - max(scores)) for score in scores]
    return [value / sum(exponentials) for value in exponentials]


def weighted_sum(weights: list[float], rows: list[list[float]], width: int) -> list[float]:
    """Sum of weight times row; zeros, `width` many, of no rows."""
    return [sum(weight * row[i] for weight, row in zip(weights, rows, strict=True)) for i in range(width)]


def joined(sequences: list[list[list[float]]]) -> list[list[float]]:
    """Step by step, the vectors of all sequences as one."""
    return [flat(list(step)) for step in zip(*sequences, strict=True)]


def shares_of_best(query: list[float], steps: list[list[float]], now: list[float], top_k: int) -> list[float]:
    """Softmax of <query, key> / sqrt(d) + <now, gap> / sqrt(d_t) over the best steps, 0 for others; step: key, gap."""
    scores = []
    for step in steps:
        key, gap = step[: len(query)], step[len(query) :]
        score = dot(query, key) / math.sqrt(len(query))
        scores.append(score + dot(now, gap) / math.sqrt(len(now)) if now else score)
    best = sorted(range(len(scores)), key=lambda i: -scores[i])[:top_k]
    shares = dict(zip(best, softmax([scores[i] for i in best]), strict=True))
    return [shares.get(i, 0.0) for i in range(len(scores))]


def scaled_rows(state: dict[str, Tensor], name: str, factors: list[float]) -> list[list[float]]:
    """Row k of a matrix of the state times factor k; none where there are no factors."""
    rows = state[name].tolist() if factors else []
    return [[factor * value for value in row] for factor, row in zip(factors, rows, strict=True)]
