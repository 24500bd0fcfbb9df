"""Parents stay as they are, genes in their ranges, crossover mixes, and the best of all scored is returned."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.search.evolution import Evolution, Genes, crossed, evolve, mutated

SIZES = (5, 8, 8, 8, 8, 8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mutation_leaves_the_parent_and_the_ranges_alone() -> None:
    parent, draws = (4, 7, 0, 3, 3, 3), generator()
    children = [mutated(parent, SIZES, 0.5, draws) for _ in range(200)]
    assert parent == (4, 7, 0, 3, 3, 3)
    assert all(0 <= gene < size for child in children for gene, size in zip(child, SIZES, strict=True))
    changed = sum(gene != old for child in children for gene, old in zip(child, parent, strict=True))
    assert 0.35 < changed / (200 * 6) < 0.5  # half are drawn anew, of which one in five or eight is as before


def test_crossover_cuts_between_two_genes_everywhere() -> None:
    one, other, draws = (0,) * 6, (1,) * 6, generator()
    children = {crossed(one, other, draws) for _ in range(200)}
    assert children == {one[:point] + other[point:] for point in range(1, 6)}
    assert crossed((3,), (4,), draws) == (3,)


def test_the_optimum_of_a_separable_score_is_found_and_nothing_is_scored_twice() -> None:
    target = (1, 7, 2, 5, 0, 6)
    asked: list[Genes] = []

    def score(genes: Genes) -> float:
        asked.append(genes)
        return -float(sum(abs(gene - wanted) for gene, wanted in zip(genes, target, strict=True)))

    best = evolve(Evolution(generations=60), SIZES, score, [(0,) * 6], generator())
    assert best == target
    assert len(set(asked)) == len(asked)


def test_equal_seeds_give_equal_genes() -> None:
    def found(seed: int) -> Genes:
        return evolve(Evolution(generations=3), SIZES, lambda genes: hash(genes) % 997, [(0,) * 6], generator(seed))

    assert found(3) == found(3)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"evolution\.parents=0"):
        Evolution(parents=0)
    with pytest.raises(ConfigError, match="mutation_probability"):
        Evolution(mutation_probability=0.0)
