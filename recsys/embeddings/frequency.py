"""Which ids are frequent, from the counts that the manifest keeps: ids of a vocabulary rank by training frequency."""

import math
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from recsys.core.specs import FeatureSpec
from recsys.embeddings.method import num_ids


def densities(feature: FeatureSpec) -> Iterator[tuple[int, int, float]]:
    """Runs of ids that are about equally frequent.

    Yields:
        (first id, one past the last id, training look-ups per id), density never rising. Id 0, out-of-vocabulary,
        comes first with an infinite one: all ids that training never saw read it. A feature without counts is one
        run of density 1 beside it.
    """
    size = num_ids(feature)
    yield 0, 1, math.inf
    density, low = (math.inf if feature.octave_counts else 1.0), 1
    for count in feature.octave_counts:
        high = min(2 * low, size)
        if low < high:
            density = min(density, count / (high - low))  # ranked ids cannot become more frequent
            yield low, high, density
            low = high
    if low < size:
        yield low, size, 0.0 if feature.octave_counts else density


def runs_of_ids(feature: FeatureSpec) -> list[tuple[int, int, float]]:
    """`densities` plus one, so that ids that training does not know count too; id 0 is as frequent as the next."""
    runs = list(densities(feature))
    top = max((density for _, _, density in runs if math.isfinite(density)), default=0.0) or 1.0
    return [(low, high, min(density, top) + 1) for low, high, density in runs]


def id_weights(feature: FeatureSpec) -> Tensor:
    """Estimated share of the training look-ups that each id has; float32, shape (n,), sum 1."""
    weights = torch.empty(num_ids(feature), dtype=torch.float64)
    for low, high, density in runs_of_ids(feature):
        weights[low:high] = density
    return (weights / weights.sum()).float()


@cache
def share_of_ids(feature: FeatureSpec, first: int, end: int) -> float:
    """Estimated share of the training look-ups that ids in [first, end) have together."""
    runs = runs_of_ids(feature)
    inside = math.fsum(density * max(0, min(high, end) - max(low, first)) for low, high, density in runs)
    return inside / math.fsum(density * (high - low) for low, high, density in runs)


def heads(features: Sequence[FeatureSpec], num_rows: int) -> list[int]:
    """How many of each feature's first ids share out `num_rows` rows, the most frequent ids of all features first.

    Args:
        features: with vocabularies.
        num_rows: rows to give away; id 0 of every feature comes first.
    Returns:
        k of each feature: ids [0, k) own rows. The sum is min(num_rows, all ids); more rows never make a k smaller.
    """
    runs = [(density, number, low, high) for number, f in enumerate(features) for low, high, density in densities(f)]
    # Sorting is stable and a feature's runs come in order, so what a feature gets is a prefix of its ids.
    runs.sort(key=lambda run: -run[0])
    counts, left = [0] * len(features), max(num_rows, 0)
    for _, number, low, high in runs:
        taken = min(high - low, left)
        counts[number], left = counts[number] + taken, left - taken
    return counts


def heads_of_known(features: Sequence[FeatureSpec], num_rows: int) -> list[int]:
    """As `heads`; hashed features, whose frequent ids nobody knows, get none."""
    known = [feature for feature in features if feature.num_embeddings is not None]
    counts = dict(zip([feature.name for feature in known], heads(known, num_rows), strict=True))
    return [counts.get(feature.name, 0) for feature in features]
