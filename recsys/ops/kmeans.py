"""Weighted k-means: seeding by k-means++, then Lloyd's iterations, with a stated generator and no empty cluster."""

import torch
from torch import Tensor

CHUNK, CHUNK_ON_GPU = 1 << 18, 1 << 22
"""Distances held at once; on a CPU as many as stay in its cache: measured 2 to 4 times as fast as 2**22."""

SEEDED = 512
"""Centroids up to which k-means++ chooses where to start: it takes a step a centroid, each over all points."""

WORK = 1 << 32
"""Distances that the search for more centroids than that computes, about: 4 to 10 s on one core. Points are
sampled for it, then iterations cut; but the nearest of K centroids is sought once at least for `LEAST` K points."""

LEAST = 4

ROUNDS = 16
"""In which that many are drawn. Measured on 16 k points and 4 k centroids in 4 columns: an inertia 10 % above that of
k-means++ (18 % with weights by Zipf) in a quarter of its time; at random in one round it is 34 % above."""


def kmeans(
    points: Tensor,
    num_centroids: int,
    *,
    weights: Tensor,
    generator: torch.Generator,
    iterations: int = 25,
    seeded: int = SEEDED,
) -> Tensor:
    """Find centroids that make the weighted sum of squared distances small.

    Args:
        points: float32, shape (N, D), N >= 1.
        num_centroids: K >= 1. With N <= K the points themselves are returned, then copies of the last.
        weights: float32, shape (N,), not negative, of a positive sum; how much each point's distance counts.
        generator: of the seeding, on the CPU; the same state gives the same centroids.
        iterations: of Lloyd's, at most; it stops when no point changes its centroid.
        seeded: K up to which k-means++ chooses the first centroids; more are drawn in rounds.
    Returns:
        float32, shape (K, D), on the device of `points`.
    Source: Arthur & Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007; Lloyd 1982.
    """
    if points.shape[0] <= num_centroids:
        return torch.cat([points, points[-1:].expand(num_centroids - points.shape[0], -1)])
    shift = points.mean(0)  # distances by products lose digits far from the origin
    points = points - shift
    if num_centroids <= seeded:
        centroids = seed_centroids(points, num_centroids, weights=weights, generator=generator)
    else:
        size = max(WORK // (num_centroids * iterations), LEAST * num_centroids)
        points, weights = _distinct(*_thinned(points, weights, size, generator))
        if points.shape[0] <= num_centroids:
            return kmeans(points + shift, num_centroids, weights=weights, generator=generator)
        centroids = spread_seeds(points, num_centroids, weights=weights, generator=generator)
        iterations = min(iterations, max(1, WORK // (num_centroids * points.shape[0])))
    return refine(points, centroids, weights=weights, iterations=iterations) + shift


def _thinned(points: Tensor, weights: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points drawn `size` times by their weights, and how often each was drawn; all of them if they are fewer."""
    if points.shape[0] <= size:
        return points, weights
    counts = torch.bincount(_draw(weights, size, generator), minlength=points.shape[0])
    return points[counts > 0], counts[counts > 0].to(weights.dtype)


def _distinct(points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Points that differ, sorted, and the sums of their weights."""
    points, codes = points.unique(dim=0, return_inverse=True)
    sums = torch.zeros(points.shape[0], dtype=torch.float64, device=points.device)
    return points, sums.index_add_(0, codes, weights.double()).to(weights.dtype)


def spread_seeds(points: Tensor, num_centroids: int, *, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draw points in a few rounds, each in proportion to weight times squared distance to those of rounds before.

    Args:
        points: float32, shape (N, D), distinct, N >= K.
        num_centroids: K.
        weights: float32, shape (N,), not negative; points without weight come last.
        generator: on the CPU.
    Returns:
        float32, shape (K, D), no point twice.
    Source: Bahmani et al., "Scalable k-means++", VLDB 2012, for the rounds; Efraimidis & Spirakis, "Weighted random
    sampling with a reservoir", 2006, for draws without repetition.
    """
    nearest = torch.ones_like(weights)
    left = torch.ones(points.shape[0], dtype=torch.bool, device=points.device)
    picks = []
    for number in range(ROUNDS):
        count = num_centroids * (number + 1) // ROUNDS - num_centroids * number // ROUNDS
        shares = torch.rand(points.shape[0], dtype=torch.float64, generator=generator).to(points.device)
        # A distance may be rounded to 0, but what has weight still goes before what has none.
        mass = weights.double() * nearest.double().clamp(min=torch.finfo(torch.float32).tiny)
        waits = torch.where(left, -shares.log() / mass, torch.nan)  # NaN, sorted last, behind infinite waits
        chosen = waits.sort(stable=True).indices[:count]
        left[chosen] = False
        picks.append(chosen)
        if count and number + 1 < ROUNDS:
            found = nearest_centroids(points, points[chosen])[1]
            nearest = torch.minimum(nearest, found) if number else found
    return points[torch.cat(picks)]


def seed_centroids(points: Tensor, num_centroids: int, *, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draw points as first centroids, each in proportion to weight times squared distance to those before.

    Of a few draws the one is kept that leaves least to the rest ("greedy" k-means++).

    Returns:
        float32, shape (K, D); points repeat only where fewer than K differ.
    """
    trials = 2 + num_centroids.bit_length() // 2
    chosen = _draw(weights, 1, generator)
    nearest = (points - points[chosen]).square().sum(1)
    picks = [chosen]
    for _ in range(1, num_centroids):
        mass = weights * nearest
        candidates = _draw(mass if bool(mass.sum() > 0) else weights, trials, generator)
        # Exact differences: a point that is a centroid has distance 0, and is not drawn again.
        left = torch.stack([(points - points[c]).square().sum(1) for c in candidates]).minimum(nearest)
        best = int((left * weights).sum(1).argmin())
        picks.append(candidates[best : best + 1])
        nearest = left[best]
    return points[torch.cat(picks)]


def _draw(mass: Tensor, count: int, generator: torch.Generator) -> Tensor:
    # By cumulated shares: torch.multinomial takes at most 2**24 of them.
    cumulated = mass.double().cumsum(0)
    shares = torch.rand(count, dtype=torch.float64, generator=generator).to(mass.device)
    drawn = torch.searchsorted(cumulated, shares * cumulated[-1], right=True)
    return drawn.clamp(max=mass.numel() - 1)


def refine(points: Tensor, centroids: Tensor, *, weights: Tensor, iterations: int) -> Tensor:
    """Lloyd's iterations from given centroids; empty clusters take the points that cost most.

    Returns:
        float32, shape (K, D): weighted means of the points nearest to each.
    """
    before = torch.full((points.shape[0],), -1, dtype=torch.int64, device=points.device)
    for _ in range(iterations):
        codes, distances = nearest_centroids(points, centroids)
        if torch.equal(codes, before):
            break
        before = codes
        centroids = weighted_means(points, codes, weights, fallback=centroids)
        held = torch.bincount(codes, weights=weights, minlength=centroids.shape[0])
        empty = (held <= 0).nonzero().squeeze(1)
        if empty.numel():
            farthest = (distances * weights).sort(descending=True, stable=True).indices[: empty.numel()]
            centroids[empty] = points[farthest]
    return centroids


def weighted_means(points: Tensor, codes: Tensor, weights: Tensor, *, fallback: Tensor) -> Tensor:
    """Weighted mean of the points of each code; where a code has no weight, the row of `fallback`.

    Returns:
        float32, shape of `fallback` (K, D).
    """
    # In float64, so that the mean of equal points is that point.
    weights = weights.double()
    total = torch.zeros(fallback.shape[0], dtype=torch.float64, device=points.device).index_add_(0, codes, weights)
    sums = torch.zeros(fallback.shape, dtype=torch.float64, device=points.device)
    sums.index_add_(0, codes, points.double() * weights.unsqueeze(1))
    means = (sums / total.clamp(min=torch.finfo(torch.float64).tiny).unsqueeze(1)).float()
    return torch.where((total > 0).unsqueeze(1), means, fallback)


def nearest_centroids(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Assign each point.

    Args:
        points: float32, shape (N, D).
        centroids: float32, shape (K, D).
    Returns:
        (codes, squared distances): int64 and float32, shape (N,); of equally near centroids the first.
    """
    codes, distances = [], []
    shift = centroids.mean(0)
    centroids = centroids - shift
    norms = centroids.square().sum(1)
    held = CHUNK_ON_GPU if points.is_cuda else CHUNK
    for part in points.split(max(1, held // centroids.shape[0])):
        part = part - shift
        least, nearest = torch.addmm(norms, part, centroids.t(), alpha=-2).min(1)
        codes.append(nearest)
        distances.append((least + part.square().sum(1)).clamp(min=0))
    return torch.cat(codes), torch.cat(distances)
