"""k-means against scikit-learn, small cases worked out by hand, and the guards."""

import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from recsys.ops.kmeans import _thinned, kmeans, nearest_centroids, refine, seed_centroids, spread_seeds, weighted_means


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inertia(points: Tensor, centroids: Tensor, weights: Tensor) -> float:
    return float((torch.cdist(points, centroids).amin(1).square() * weights).sum())


@pytest.mark.parametrize(("size", "width", "num"), [(2000, 2, 16), (2000, 4, 64), (1000, 1, 256), (300, 8, 5)])
@pytest.mark.parametrize("weighted", [False, True])
def test_inertia_is_that_of_scikit_learn(size: int, width: int, num: int, weighted: bool) -> None:
    points = torch.randn(size, width, generator=generator())
    weights = 1 / torch.arange(1, size + 1).float() if weighted else torch.ones(size)
    ours, theirs = 0.0, 0.0  # over a few seeds: a single run of either falls into better or worse optima
    for seed in range(4):
        ours += inertia(points, kmeans(points, num, weights=weights, generator=generator(seed)), weights)
        fitted = KMeans(num, n_init=1, random_state=seed, max_iter=25).fit(
            points.numpy(), sample_weight=weights.numpy()
        )
        theirs += fitted.inertia_
    assert ours <= theirs * 1.03


@pytest.mark.parametrize("weighted", [False, True])
def test_inertia_of_many_centroids_is_that_of_scikit_learn(weighted: bool) -> None:
    points = torch.randn(6000, 3, generator=generator())
    weights = 1 / torch.arange(1, 6001).float() if weighted else torch.ones(6000)
    ours = inertia(points, kmeans(points, 600, weights=weights, generator=generator()), weights)
    fitted = KMeans(600, n_init=1, random_state=0, max_iter=25).fit(points.numpy(), sample_weight=weights.numpy())
    assert ours <= fitted.inertia_ * (1.2 if weighted else 1.08), "whose k-means++ takes a step a centroid"


def test_many_centroids_take_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 k points and 4 k centroids took 33 s; here all distances are counted."""
    measured = []

    def counting(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
        measured.append(len(points) * len(centroids))
        return nearest_centroids(points, centroids)

    monkeypatch.setattr("recsys.ops.kmeans.nearest_centroids", counting)
    monkeypatch.setattr("recsys.ops.kmeans.WORK", 1 << 26)
    points = torch.randn(16_384, 2, generator=generator())
    found = kmeans(points, 4096, weights=torch.ones(16_384), generator=generator())
    assert found.shape == (4096, 2) and sum(measured) < 2 * 4 * 4096**2
    measured.clear()
    kmeans(points.repeat(10, 1), 600, weights=torch.ones(163_840), generator=generator())
    assert 1 << 24 < sum(measured) <= (1 << 26) * 1.1


def test_thinned_points_stand_for_all_by_weight() -> None:
    points, weights = torch.arange(1000.0).unsqueeze(1), torch.ones(1000)
    weights[:10] = 1000.0
    some, counts = _thinned(points, weights, 500, generator())
    assert counts.sum() == 500 and len(some) == len(counts) < 500
    assert counts[some[:, 0] < 10].sum() / 500 == pytest.approx(10_000 / 10_990, abs=0.04)


def test_spread_seeds_differ_and_follow_weights() -> None:
    points, weights = torch.arange(100.0).unsqueeze(1), torch.ones(100)
    weights[:10], weights[90:] = 1000.0, 0.0
    seeds = spread_seeds(points, 40, weights=weights, generator=generator()).flatten()
    assert len(seeds.unique()) == 40 and seeds.max() < 90
    assert (seeds < 10).sum() == 10
    rest = spread_seeds(points, 95, weights=weights, generator=generator()).flatten()
    assert len(rest.unique()) == 95, "points without weight come last"


def test_many_centroids_of_few_distinct_points_are_exact() -> None:
    distinct = torch.randn(500, 2, generator=generator())
    found = kmeans(distinct.repeat(4, 1), 600, weights=torch.ones(2000), generator=generator())
    codes, distances = nearest_centroids(distinct, found)
    assert found.shape == (600, 2) and len(codes.unique()) == 500
    torch.testing.assert_close(distances, torch.zeros(500), atol=1e-5, rtol=0)


def test_lloyd_by_hand() -> None:
    """0, 1 and 10 with weights 3, 1, 1 from centroids 0 and 1: {0}, {1, 10} -> 0, 5.5 -> {0, 1}, {10} -> 0.25, 10."""
    points, weights = torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([3.0, 1.0, 1.0])
    start = torch.tensor([[0.0], [1.0]])
    assert refine(points, start, weights=weights, iterations=1).tolist() == [[0.0], [5.5]]
    assert refine(points, start, weights=weights, iterations=9).tolist() == [[0.25], [10.0]]


def test_separated_clusters_are_found() -> None:
    centers = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    points = (centers.unsqueeze(1) + torch.randn(3, 50, 2, generator=generator())).flatten(0, 1)
    found = kmeans(points, 3, weights=torch.ones(150), generator=generator())
    codes, _ = nearest_centroids(points, found)
    assert sorted(tuple(part.unique().tolist()) for part in codes.split(50)) == [(0,), (1,), (2,)]


@pytest.mark.parametrize("num", [5, 8])
def test_no_more_points_than_centroids_is_exact(num: int) -> None:
    points = torch.randn(5, 3, generator=generator())
    found = kmeans(points, num, weights=torch.ones(5), generator=generator())
    assert found.shape == (num, 3)
    codes, distances = nearest_centroids(points, found)
    assert torch.equal(found[codes], points)
    torch.testing.assert_close(distances, torch.zeros(5), atol=1e-6, rtol=0)


def test_few_distinct_points_are_exact_and_nothing_is_nan() -> None:
    distinct = torch.randn(6, 2, generator=generator())
    points = distinct.repeat(20, 1)
    found = kmeans(points, 8, weights=torch.ones(120), generator=generator())
    assert found.isfinite().all()
    codes, _ = nearest_centroids(points, found)
    torch.testing.assert_close(found[codes], points, atol=1e-6, rtol=0)


def test_empty_clusters_take_the_points_that_cost_most() -> None:
    points = torch.tensor([[0.0], [0.5], [8.0], [9.0]])
    start = torch.tensor([[0.0], [99.0], [77.0]])  # all points go to the first
    found = refine(points, start, weights=torch.ones(4), iterations=1)
    assert found.tolist() == [[4.375], [9.0], [8.0]]


def test_points_without_weight_do_not_move_centroids() -> None:
    points = torch.tensor([[0.0], [1.0], [50.0], [51.0], [1000.0]])
    weights = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
    assert sorted(kmeans(points, 2, weights=weights, generator=generator()).flatten().tolist()) == [0.5, 50.5]
    means = weighted_means(points, torch.tensor([0, 0, 0, 0, 1]), weights, fallback=torch.tensor([[7.0], [8.0]]))
    assert means.tolist() == [[25.5], [8.0]]


def test_seeds_are_points_and_differ() -> None:
    points = torch.arange(40.0).unsqueeze(1)
    seeds = seed_centroids(points, 40, weights=torch.ones(40), generator=generator())
    assert sorted(seeds.flatten().tolist()) == list(range(40))


def test_deterministic_by_seed_and_far_from_the_origin() -> None:
    points = torch.randn(500, 3, generator=generator()) + 1000
    runs = [kmeans(points, 20, weights=torch.ones(500), generator=generator(4)) for _ in range(2)]
    assert torch.equal(*runs)
    many = torch.randn(3000, 3, generator=generator())
    runs_of_many = [kmeans(many, 700, weights=torch.ones(3000), generator=generator(4)) for _ in range(2)]
    assert torch.equal(*runs_of_many)
    near = kmeans(points - 1000, 20, weights=torch.ones(500), generator=generator(4))
    assert inertia(points - 1000, runs[0] - 1000, torch.ones(500)) == pytest.approx(
        inertia(points - 1000, near, torch.ones(500)), rel=0.02
    )


def test_assignment_in_chunks_equals_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    points, centroids = torch.randn(101, 4, generator=generator()), torch.randn(7, 4, generator=generator(1))
    monkeypatch.setattr("recsys.ops.kmeans.CHUNK", 70)
    codes, distances = nearest_centroids(points, centroids)
    want = torch.cdist(points, centroids, compute_mode="donot_use_mm_for_euclid_dist").square()
    assert torch.equal(codes, want.argmin(1))
    torch.testing.assert_close(distances, want.amin(1), atol=1e-5, rtol=1e-5)
