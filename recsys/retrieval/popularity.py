"""Negatives drawn by how often items were met, to a power."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.retrieval.sampler import NegativeSampler, SamplerConfig
from recsys.retrieval.uniform import UniformNegatives

MAX_ROUNDS = 50
"""Draws again for items that the user met; who met nearly all popular items then gets uniform ones."""


@dataclass(frozen=True, kw_only=True)
class PopularityConfig(SamplerConfig):
    """Probability of an item: its degree to `power`, 0.75 as word2vec draws words."""

    power: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.power <= 2:
            raise ConfigError(f"retrieval.sampler.power={self.power}: must lie in [0, 2].")

    def negatives(self, interactions: Interactions) -> NegativeSampler:
        """The sampler."""
        return PopularityNegatives(interactions, self.power)


class PopularityNegatives(NegativeSampler):
    """Inverse of the cumulative distribution, drawn again where the user met the item."""

    def __init__(self, interactions: Interactions, power: float) -> None:
        self._interactions, self._fallback = interactions, UniformNegatives(interactions)
        weights = interactions.item_degrees.double() ** power
        weights[0] = 0  # power 0 would make one of it
        shares = weights / weights.sum()
        self._cumulative = shares.cumsum(0)
        self.log_probability = shares.log().float()

    def draw(self, users: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Items, int64 (B, count)."""
        repeated = users.repeat_interleave(count)
        drawn = self._draw(repeated.numel(), generator)
        again = self._met(repeated, drawn)
        for _ in range(MAX_ROUNDS):
            if not again.numel():
                break
            drawn[again] = self._draw(again.numel(), generator)
            again = again[self._met(repeated[again], drawn[again])]
        if again.numel():
            drawn[again] = self._fallback.draw(repeated[again], 1, generator).squeeze(1)
        return drawn.view(len(users), count)

    def _met(self, users: Tensor, items: Tensor) -> Tensor:
        return self._interactions.contains(users, items).nonzero().squeeze(1)

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        share = torch.rand(count, generator=generator, device=self._cumulative.device, dtype=torch.float64)
        # Rounding may leave the last sum below 1; the last item with any probability takes what is above.
        return torch.searchsorted(self._cumulative, share * self._cumulative[-1], right=True).clamp_(
            max=self._cumulative.numel() - 1
        )
