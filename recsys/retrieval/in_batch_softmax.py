"""Softmax over the positives of a batch: each row's negatives are the other rows' items."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from recsys.core.errors import ConfigError
from recsys.retrieval.loss import LossConfig, Triples


@dataclass(frozen=True, kw_only=True)
class InBatchSoftmaxConfig(LossConfig):
    """Cross entropy of a row's item among the batch's items, all of them looked up anyway.

    Another row's item that is the row's own (the same id) is no negative. Popular items are in more batches, which
    `correct` undoes.
    Source: Yi et al., Sampling-bias-corrected neural modeling, RecSys 2019, eq. 2-4.
    """

    needs_negatives: ClassVar[bool] = False

    temperature: float = 0.2  # scores are divided by it
    correct: bool = False  # subtract log Q of the batch's items

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"retrieval.loss.temperature={self.temperature}: must be above 0.")

    def __call__(self, triples: Triples) -> Tensor:
        """Sum over rows."""
        logits = triples.users @ triples.positives.t() / self.temperature
        ids = triples.positive_ids
        if self.correct:
            logits = logits - triples.log_positive[ids]
        targets = torch.arange(len(ids), device=ids.device)
        same = (ids.unsqueeze(1) == ids).fill_diagonal_(False)
        return cross_entropy(logits.masked_fill(same, float("-inf")), targets, reduction="sum")
