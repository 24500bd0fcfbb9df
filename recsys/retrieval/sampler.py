"""What a batch is made of: pairs to learn from, and items to tell them from. All draws are vectorised and seeded.

Adding a sampler: one file with a `SamplerConfig`, one yaml in conf/retrieval/sampler, one test.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from recsys.core.errors import ConfigError, DataError
from recsys.core.interactions import Interactions


class Positives(Enum):
    """How the pairs of an epoch are drawn; an epoch has as many as there are pairs."""

    USER_UNIFORM = "user_uniform"  # a user, all alike, then one of his items, with replacement: LightGCN's sampler
    INTERACTION_UNIFORM = "interaction_uniform"  # every pair once, shuffled


def epoch_pairs(interactions: Interactions, positives: Positives, generator: torch.Generator) -> Tensor:
    """Positions of the pairs of one epoch, int64 (E,), in the order of training."""
    count, device = interactions.num_pairs, generator.device
    if positives is Positives.INTERACTION_UNIFORM:
        return torch.randperm(count, generator=generator, device=device)
    present = interactions.user_degrees.nonzero().squeeze(1)
    users = present[torch.randint(present.numel(), (count,), generator=generator, device=device)]
    # float64: a float32 in [0, 1) times a degree above 2**24 would miss items.
    share = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
    return interactions.offsets[users] + (share * interactions.user_degrees[users]).long()


def positive_log_probability(interactions: Interactions, positives: Positives) -> Tensor:
    """Log probability that a drawn pair's item is each item, float32 (M,); -inf for items without pairs."""
    if positives is Positives.INTERACTION_UNIFORM:
        shares = interactions.item_degrees.double() / interactions.num_pairs
    else:
        weights = 1 / interactions.user_degrees[interactions.users].double()
        shares = torch.zeros(interactions.num_items, dtype=torch.float64, device=weights.device)
        shares.index_add_(0, interactions.items, weights)
        shares /= (interactions.user_degrees > 0).sum()
    return shares.log().float()


def with_negatives(interactions: Interactions) -> Interactions:
    """Pairs of users who have not met every item: the others have no negative, and nothing can be listed for them.

    Raises:
        DataError: all users have.
    """
    free = interactions.user_degrees < interactions.num_items - 1
    kept = free[interactions.users]
    if bool(kept.all()):
        return interactions
    if not bool(kept.any()):
        raise DataError(
            f"every user met all {interactions.num_items - 1} items: there are no negatives. Give more items, or "
            "choose a loss that draws none (in_batch_softmax, direct_au)."
        )
    return interactions.only(kept)


class NegativeSampler(ABC):
    """Draws items for users; what it needs is computed once."""

    log_probability: Tensor  # float32 (M,), of each item before a user's own are left out

    @abstractmethod
    def draw(self, users: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """`count` items for each user, with replacement, none of which he met in training.

        Args:
            users: int64 (B,).
            count: of each.
            generator: on the device of the interactions.

        Returns:
            int64 (B, count), ids in [1, num_items).
        """


@dataclass(frozen=True, kw_only=True)
class SamplerConfig(ABC):
    """Base of samplers."""

    positives: Positives = Positives.USER_UNIFORM
    num_negatives: int = 1  # of a row; a loss that needs none draws none

    def __post_init__(self) -> None:
        if self.num_negatives < 1:
            raise ConfigError(f"retrieval.sampler.num_negatives={self.num_negatives}: must be 1 or more.")

    @property
    def num_kept(self) -> int:
        """How many of a row's drawn items the loss sees: those that the model scores highest."""
        return self.num_negatives

    @abstractmethod
    def negatives(self, interactions: Interactions) -> NegativeSampler:
        """The sampler of these interactions' complement."""
