"""Negatives drawn alike from all items that the user did not meet."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.core.interactions import Interactions
from recsys.retrieval.sampler import NegativeSampler, SamplerConfig


@dataclass(frozen=True, kw_only=True)
class UniformConfig(SamplerConfig):
    """LightGCN's negatives."""

    def negatives(self, interactions: Interactions) -> NegativeSampler:
        """The sampler."""
        return UniformNegatives(interactions)


class UniformNegatives(NegativeSampler):
    """The r-th item that a user did not meet, r uniform: exact, without a second try.

    Before the j-th of a user's items in ascending order, both from 0, lie `item_j - 1 - j` items that he did not meet.
    So the r-th of these lies behind as many of his items as have no more than r before them: one binary search in the
    sorted gaps of all users.
    """

    def __init__(self, interactions: Interactions) -> None:
        self._interactions = interactions
        num_real = interactions.num_items - 1
        full = (interactions.user_degrees >= num_real).nonzero()
        if full.numel():
            raise DataError(
                f"user id {int(full[0])} (and {full.numel() - 1} more) met all {num_real} items: there is no negative "
                "for such a user. Leave these users out of train."
            )
        place = torch.arange(interactions.num_pairs, device=interactions.users.device)
        place = place - interactions.offsets[interactions.users]
        self._gaps = interactions.users * interactions.num_items + interactions.items - 1 - place
        probability = torch.full((interactions.num_items,), 1 / num_real, device=place.device)
        probability[0] = 0
        self.log_probability = probability.log()

    def draw(self, users: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Items, int64 (B, count)."""
        known = self._interactions
        free = (known.num_items - 1 - known.user_degrees[users]).unsqueeze(1)
        share = torch.rand(len(users), count, generator=generator, device=users.device, dtype=torch.float64)
        rank = (share * free).long()
        wanted = users.unsqueeze(1) * known.num_items + rank
        before = torch.searchsorted(self._gaps, wanted, right=True) - known.offsets[users].unsqueeze(1)
        return rank + before + 1
