"""UltraGCN's loss: binary cross entropy of pairs, weighed by degrees as if messages had been passed for ever."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from recsys.core.errors import ConfigError
from recsys.retrieval.loss import LossConfig, Triples


@dataclass(frozen=True, kw_only=True)
class DegreeWeightedConfig(LossConfig):
    """a softplus(-positive) + negative_weight * mean of b softplus(negative), a and b = floor + scale * beta(u, i).

    Defaults are the authors' for Gowalla, where 1,500 negatives are drawn a row. They sum over rows and add half of
    1e-4 times the squares of all weights to every batch of 512: as the mean here is over rows, the yaml has
    train.optimizer.table_regularizer=2e-7 and retrieval.regularizer=0. Their negatives may be the user's own items,
    these may not.
    Source: Mao et al., UltraGCN, CIKM 2021, arXiv:2110.15114, eq. 10-13, and the authors' program.
    """

    positive_floor: float = 1e-6  # w1
    positive_scale: float = 1.0  # w2
    negative_floor: float = 1e-6  # w3
    negative_scale: float = 1.0  # w4
    negative_weight: float = 300.0

    def __post_init__(self) -> None:
        for name in ("positive_floor", "positive_scale", "negative_floor", "negative_scale", "negative_weight"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"retrieval.loss.{name}={getattr(self, name)}: must be 0 or more.")

    def __call__(self, triples: Triples) -> Tensor:
        """Sum over rows."""
        users = triples.user_degrees[triples.user_ids]
        drawn = beta(users, triples.item_degrees[triples.positive_ids])
        pushed = beta(users.unsqueeze(1), triples.item_degrees[triples.negative_ids])
        positive = (self.positive_floor + self.positive_scale * drawn) * softplus(-triples.positive_scores())
        negative = (self.negative_floor + self.negative_scale * pushed) * softplus(triples.negative_scores())
        return positive.sum() + self.negative_weight * negative.mean(1).sum()


def beta(first: Tensor, second: Tensor) -> Tensor:
    """sqrt(d + 1) / d / sqrt(e + 1) of degrees d, at least 1, and e, float32: weight of a message that has converged.

    Source: as above, eq. 7.
    """
    first = first.clamp(min=1).float()
    return torch.sqrt(first + 1) / first * torch.rsqrt(second.float() + 1)
