"""What a retrieval loss is. Adding one: one file with a `LossConfig`, one yaml in conf/retrieval/loss, one test."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

MATRIX_PAYS = 32
"""A score of a matrix product costs about so many times less than one whose item is looked up for it alone."""


@dataclass(frozen=True, kw_only=True)
class Triples:
    """B rows of a batch with n negatives each, all columns on every rank.

    Vectors are those that scores are dot products of: of length 1 where the similarity is the cosine.
    """

    users: Tensor  # float32 (B, d)
    positives: Tensor  # float32 (B, d)
    negatives: Tensor  # float32 (V, d): distinct items, or one for each place of `negative_rows`
    negative_rows: Tensor  # int64 (B, n): which of `negatives` each row has
    user_ids: Tensor  # int64 (B,)
    positive_ids: Tensor  # int64 (B,)
    negative_ids: Tensor  # int64 (B, n)
    log_positive: Tensor  # float32 (M,): log probability that an item is a row's positive
    log_negative: Tensor  # float32 (M,): log probability that an item is drawn as a negative
    user_degrees: Tensor  # int64 (U,): items that each user met
    item_degrees: Tensor  # int64 (M,): users that met each item

    def positive_scores(self) -> Tensor:
        """(B,)."""
        return (self.users * self.positives).sum(1)

    def negative_scores(self) -> Tensor:
        """(B, n)."""
        if len(self.negatives) <= MATRIX_PAYS * self.negative_rows.shape[1]:
            return (self.users @ self.negatives.t()).gather(1, self.negative_rows)
        return (self.negatives[self.negative_rows] @ self.users.unsqueeze(2)).squeeze(2)


@dataclass(frozen=True, kw_only=True)
class LossConfig(ABC):
    """Base of losses: a configuration that is called."""

    needs_negatives: ClassVar[bool] = True  # False: the batch's other positives are the negatives, none are drawn

    @abstractmethod
    def __call__(self, triples: Triples) -> Tensor:
        """Sum over the batch's rows, float32, a scalar with gradient."""
