"""An evolutionary search over genes, whole numbers in given ranges: mutation and crossover that leave parents alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from recsys.core.errors import ConfigError

Genes = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Evolution:
    """How long and how wide to search; the published values are 30, 10, 10, 10 and 0.1."""

    generations: int = 30
    parents: int = 10  # the best of all seen so far
    mutations: int = 10  # children a generation
    crossovers: int = 10
    mutation_probability: float = 0.1  # of each gene

    def __post_init__(self) -> None:
        for name in ("generations", "parents", "mutations", "crossovers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search.evolution.{name}={getattr(self, name)}: must be 1 or more.")
        if not 0 < self.mutation_probability <= 1:
            raise ConfigError(
                f"search.evolution.mutation_probability={self.mutation_probability}: above 0 and at most 1."
            )


def mutated(parent: Genes, sizes: Sequence[int], probability: float, generator: torch.Generator) -> Genes:
    """A new tuple: each gene with that probability drawn anew from [0, size)."""
    redrawn = torch.rand(len(parent), generator=generator) < probability
    return tuple(
        int(torch.randint(size, (1,), generator=generator)) if again else gene
        for gene, size, again in zip(parent, sizes, redrawn.tolist(), strict=True)
    )


def crossed(one: Genes, other: Genes, generator: torch.Generator) -> Genes:
    """A new tuple: the genes of `one` up to a point between two genes, those of `other` from there on."""
    point = int(torch.randint(1, max(len(one), 2), (1,), generator=generator))
    return one[:point] + other[point:]


def evolve(
    options: Evolution,
    sizes: Sequence[int],
    score: Callable[[Genes], float],
    first: Sequence[Genes],
    generator: torch.Generator,
) -> Genes:
    """The best genes of all that were scored, of equal ones the first.

    Args:
        options: of the search.
        sizes: gene k lies in [0, sizes[k]).
        score: higher is better; asked once for each genes.
        first: genes to start with.
        generator: of all draws.
    """
    scores: dict[Genes, float] = {}
    children = list(first)
    children += [mutated(first[0], sizes, 1.0, generator) for _ in range(options.mutations + options.crossovers)]
    for _ in range(options.generations):
        for genes in children:
            if genes not in scores:
                scores[genes] = score(genes)
        parents = sorted(scores, key=lambda genes: -scores[genes])[: options.parents]
        children = [
            mutated(_drawn(parents, generator), sizes, options.mutation_probability, generator)
            for _ in range(options.mutations)
        ]
        children += [
            crossed(_drawn(parents, generator), _drawn(parents, generator), generator)
            for _ in range(options.crossovers)
        ]
    return max(scores, key=lambda genes: scores[genes])


def _drawn(parents: Sequence[Genes], generator: torch.Generator) -> Genes:
    return parents[int(torch.randint(len(parents), (1,), generator=generator))]
