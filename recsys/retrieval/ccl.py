"""Cosine contrastive loss: positives are drawn to 1, negatives pushed below a margin and then left alone."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import relu

from recsys.core.errors import ConfigError
from recsys.retrieval.loss import LossConfig, Triples


@dataclass(frozen=True, kw_only=True)
class CCLConfig(LossConfig):
    """max(0, 1 - positive) + weight * mean of max(0, negative - margin) over a row's negatives.

    Meant for retrieval.similarity=cosine, where the first term is 1 - cosine, and for many negatives (100 to 2,000 a
    row): most of them lie below the margin and count for nothing, so the mean over them needs a large weight. Of dot
    products it is a hinge loss.
    Source: Mao et al., SimpleX, CIKM 2021, arXiv:2109.12613, eq. 1.
    """

    margin: float = 0.9
    negative_weight: float = 150.0

    def __post_init__(self) -> None:
        if not -1 <= self.margin < 1:
            raise ConfigError(f"retrieval.loss.margin={self.margin}: is a cosine, so it must lie in [-1, 1).")
        if not self.negative_weight > 0:
            raise ConfigError(f"retrieval.loss.negative_weight={self.negative_weight}: must be above 0.")

    def __call__(self, triples: Triples) -> Tensor:
        """Sum over rows."""
        pushed = relu(triples.negative_scores() - self.margin).mean(1).sum()
        return relu(1 - triples.positive_scores()).sum() + self.negative_weight * pushed
