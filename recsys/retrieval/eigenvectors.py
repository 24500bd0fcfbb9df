"""Leading eigenvectors of a large symmetric matrix that is known by its products alone."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from recsys.core.errors import RecsysError

OVERSAMPLING = 32
"""Vectors beyond those asked for: the eigenvalue after them, not the next one, says how fast the others converge."""

MAX_DEGREE, MAX_GROWTH = 16, 1e9
"""Of the polynomial between two orthonormalisations, and how much it may lift the largest eigenvalue above the
unwanted: what rounding leaves of its vector in the others grows as much, and float32 must still tell it from them."""

LOWEST_CUT = 1e-3
"""Of the largest eigenvalue: no less is suppressed, so that a matrix without so many eigenvalues has some cut."""

MAX_ROUNDS = 100


def leading_eigenvectors(
    product: Callable[[Tensor], Tensor],
    num_rows: int,
    count: int,
    *,
    seed: int,
    device: torch.device,
    tolerance: float = 1e-4,
) -> Tensor:
    """Eigenvectors of the largest eigenvalues of a positive semi-definite matrix A, signs as they fall.

    Subspace iteration, sped up by Chebyshev polynomials that are small on the unwanted part of the spectrum: where that
    ends close below the wanted part, plain iteration needs ten times the products. Source: Zhou, Saad, Tiago and
    Chelikowsky, Journal of Computational Physics 219 (2006), algorithms 3.1 and 4.1, on a block of all vectors.

    Args:
        product: A times float32 (n, k), on `device`.
        num_rows: n.
        count: how many eigenvectors, at most n.
        seed: of the vectors to start from, alike on all devices.
        tolerance: largest |A v - λ v| / λ; below `LOWEST_CUT` of the largest eigenvalue, for λ that much.
    Returns:
        float32 (n, count), orthonormal, eigenvalues ascending.
    Raises:
        RecsysError: no convergence; many more than `OVERSAMPLING` eigenvalues lie close together at the end.
    """
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(num_rows, min(count + OVERSAMPLING, num_rows), generator=generator).to(device)
    for _ in range(MAX_ROUNDS):
        values, basis, residuals = _rayleigh_ritz(product, torch.linalg.qr(basis).Q)
        top = float(values[-1])
        allowed = tolerance * values[-count:].clamp(min=LOWEST_CUT * top)
        if basis.size(0) == basis.size(1) or bool((residuals[-count:] <= allowed).all()):
            return basis[:, -count:]
        # Largest first: what rounding leaves of these in the others, QR takes out again.
        basis = _filtered(product, basis.flip(1), cut=max(float(values[0]), LOWEST_CUT * top), top=top)
    raise RecsysError(
        f"{count} eigenvectors have not converged after {MAX_ROUNDS} rounds. Ask for more or fewer of them: the "
        "eigenvalues at the end lie too close together."
    )


def _rayleigh_ritz(product: Callable[[Tensor], Tensor], basis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Approximate eigenvalues, ascending, their vectors and the norms of A v - λ v, of an orthonormal basis."""
    image = product(basis)
    values, rotation = torch.linalg.eigh(basis.t() @ image)
    vectors = basis @ rotation
    residuals = torch.linalg.vector_norm(image @ rotation - vectors * values, dim=0)
    return values, vectors, residuals


def _filtered(product: Callable[[Tensor], Tensor], vectors: Tensor, *, cut: float, top: float) -> Tensor:
    """p(A) vectors: p the Chebyshev polynomial of [0, cut], scaled to 1 at `top`, so that nothing overflows."""
    half = cut / 2
    sigma = half / (top - half)
    degree = min(MAX_DEGREE, max(1, int(math.log(MAX_GROWTH) / math.acosh(max(1 / sigma, 1 + 1e-9)))))
    ratio = 2 / sigma
    before, now = vectors, (product(vectors) - half * vectors) * (sigma / half)
    for _ in range(degree - 1):
        following = 1 / (ratio - sigma)
        after = (product(now) - half * now) * (2 * following / half) - before * (sigma * following)
        before, now, sigma = now, after, following
    return now
