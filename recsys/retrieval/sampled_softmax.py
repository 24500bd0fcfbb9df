"""Softmax over the positive and the drawn negatives, corrected for how they were drawn."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from recsys.core.errors import ConfigError
from recsys.retrieval.loss import LossConfig, Triples


@dataclass(frozen=True, kw_only=True)
class SampledSoftmaxConfig(LossConfig):
    """Cross entropy of the positive among itself and a row's negatives.

    Source: Bengio and Senécal, 2008; Jean et al., ACL 2015, arXiv:1412.2007: scores minus the log of the expected
    count n Q of each of n negatives estimate the softmax over all items. The positive is no draw, so it has no such
    term, and the n matters.
    """

    temperature: float = 1.0  # scores are divided by it
    correct: bool = True  # subtract log(n Q) of negatives

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"retrieval.loss.temperature={self.temperature}: must be above 0.")

    def __call__(self, triples: Triples) -> Tensor:
        """Sum over rows."""
        negatives = triples.negative_scores() / self.temperature
        if self.correct:
            expected = triples.log_negative[triples.negative_ids] + math.log(negatives.shape[1])
            negatives = negatives - expected
        logits = torch.cat([(triples.positive_scores() / self.temperature).unsqueeze(1), negatives], dim=1)
        return cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64), reduction="sum")
