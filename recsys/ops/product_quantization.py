"""Product quantization of a matrix: codebooks by k-means, rotation by orthogonal Procrustes fits.

Legend: N rows, P parts, K centroids of a part, d width, w = d / P.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.ops.kmeans import kmeans, nearest_centroids, refine

POINTS_PER_CENTROID = 64
"""Rows that centroids are learned from, at most, for each: more change them little."""

ROUNDS = 15
"""Of alternating between centroids and rotation."""


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """Rows x are encoded as the nearest centroids of the parts of x @ rotation."""

    codebook: Tensor  # float32 (P, K, w)
    rotation: Tensor  # float32 (d, d), orthogonal


def learn(
    table: Tensor,
    *,
    num_parts: int,
    num_centroids: int,
    weights: Tensor,
    rotate: bool,
    generator: torch.Generator,
) -> Quantizer:
    """Fit a quantizer to the rows of a table.

    Args:
        table: float32, shape (N, d).
        num_parts: P, a divisor of d.
        num_centroids: K.
        weights: float32, shape (N,), positive: how much the error of each row counts.
        rotate: learn a rotation too ("OPQ"); the better of two starts is kept, one of them no rotation.
        generator: of the sampling and seeding.
    """
    chosen, weights = _sample(weights, POINTS_PER_CENTROID * num_centroids, generator)
    rows = table[chosen]
    starts = [torch.eye(table.shape[1])]
    if rotate:
        starts.append(balanced_axes(rows, weights, num_parts))
    found = []
    for rotation in starts:
        pieces = (rows @ rotation).chunk(num_parts, dim=1)
        codebook = [kmeans(piece, num_centroids, weights=weights, generator=generator) for piece in pieces]
        quantizer = Quantizer(codebook=torch.stack(codebook), rotation=rotation)
        found.append(_alternate(rows, weights, quantizer) if rotate else quantizer)
    return min(found, key=lambda quantizer: weighted_error(rows, quantizer, weights)) if rotate else found[0]


def nearest_codes(table: Tensor, quantizer: Quantizer) -> Tensor:
    """Codes of rows, int64, shape (N, P)."""
    pieces = (table @ quantizer.rotation).chunk(quantizer.codebook.shape[0], dim=1)
    return torch.stack([_codes(piece, book) for piece, book in zip(pieces, quantizer.codebook, strict=True)], dim=1)


def decode(codes: Tensor, quantizer: Quantizer) -> Tensor:
    """Rows that codes (N, P) stand for, float32, shape (N, d)."""
    pieces = [book[code] for book, code in zip(quantizer.codebook, codes.unbind(1), strict=True)]
    return torch.cat(pieces, dim=1) @ quantizer.rotation.t()


def weighted_error(rows: Tensor, quantizer: Quantizer, weights: Tensor) -> float:
    """Weighted sum of the squared errors of rows."""
    errors = (decode(nearest_codes(rows, quantizer), quantizer) - rows).double().square().sum(1)
    return float((errors * weights).sum())


def balanced_axes(rows: Tensor, weights: Tensor, num_parts: int) -> Tensor:
    """Principal axes, dealt out so that the product of variances is about the same in every part.

    Returns:
        float32, shape (d, d), orthogonal: columns are the axes of the first part, then of the second, and so on.
    Source: Ge et al., CVPR 2013, "parametric solution" (eigenvalue allocation).
    """
    rows, weights = rows.double(), weights.double()
    centered = rows - (weights.unsqueeze(1) * rows).sum(0) / weights.sum()
    axes: Tensor
    variances, axes = torch.linalg.eigh((centered * weights.unsqueeze(1)).t() @ centered / weights.sum())
    room = rows.shape[1] // num_parts
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    # Variances below the smallest that matters count as that: logarithms of noise must not decide.
    logs = variances.clamp(min=float(variances[-1].clamp(min=1e-30)) * 1e-9).log()
    logs = (logs - logs[0] + 1e-6).tolist()
    for axis in reversed(range(rows.shape[1])):
        free = [part for part in range(num_parts) if len(parts[part]) < room]
        parts[min(free, key=lambda part: sum(logs[a] for a in parts[part]))].append(axis)
    order = torch.tensor([axis for part in parts for axis in part])
    return axes.index_select(1, order).float()


def _codes(piece: Tensor, book: Tensor) -> Tensor:
    if piece.shape[0] <= book.shape[0] and torch.equal(piece, book[: piece.shape[0]]):
        return torch.arange(piece.shape[0])  # every row is a centroid: rounded distances must not tell otherwise
    return nearest_centroids(piece, book)[0]


def _alternate(rows: Tensor, weights: Tensor, quantizer: Quantizer) -> Quantizer:
    """Centroids for the rotation, rotation for the centroids, and again: the error never rises."""
    codebook, rotation = quantizer.codebook, quantizer.rotation
    weighted = (rows * weights.unsqueeze(1)).double().t()
    for last in [*[False] * ROUNDS, True]:
        pieces = (rows @ rotation).chunk(codebook.shape[0], dim=1)
        codebook = _refined(pieces, codebook, weights, iterations=10 if last else 1)
        if not last:
            codes = [nearest_centroids(piece, book)[0] for piece, book in zip(pieces, codebook, strict=True)]
            decoded = torch.cat([book[code] for book, code in zip(codebook, codes, strict=True)], dim=1)
            left, _, right = torch.linalg.svd(weighted @ decoded.double())
            rotation = (left @ right).float()
    return Quantizer(codebook=codebook, rotation=rotation)


def _refined(pieces: Sequence[Tensor], codebook: Tensor, weights: Tensor, *, iterations: int) -> Tensor:
    books = zip(pieces, codebook, strict=True)
    return torch.stack([refine(piece, book, weights=weights, iterations=iterations) for piece, book in books])


def _sample(weights: Tensor, limit: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(positions, weights) of rows to learn from: the heaviest half, and others at random that stand for the rest."""
    count = weights.numel()
    if count <= limit:
        return torch.arange(count), weights
    heavy = weights.sort(descending=True, stable=True).indices
    head, tail = heavy[: limit // 2], heavy[limit // 2 :]
    drawn = tail[torch.randperm(tail.numel(), generator=generator)[: limit - limit // 2]]
    share = weights[tail].double().sum() / weights[drawn].double().sum()
    return torch.cat([head, drawn]), torch.cat([weights[head], (weights[drawn] * share).float()])
