"""Batches of (user, positive, negatives): a repeatable stream of the training pairs of a graph."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.batch import Batch
from recsys.core.interactions import Interactions
from recsys.retrieval.sampler import SamplerConfig, epoch_pairs, with_negatives

logger = logging.getLogger(__name__)

USER, POSITIVE, NEGATIVE = "user", "positive", "negative"
"""Keys of a batch's ids."""


def negatives_of(batch: Batch) -> Tensor:
    """The negatives of a batch, int64 (B, n)."""
    jagged = batch.sparse.to_dict()
    negatives: Tensor = jagged[NEGATIVE].values()
    count = len(jagged[USER].values())
    return negatives.view(count, negatives.numel() // max(count, 1))


@dataclass(frozen=True)
class Drawn:
    """A batch's negatives: `items` int64 (V,), each looked up once, `rows` int64 (B, n), which of them a row has."""

    items: Tensor
    rows: Tensor

    @classmethod
    def of(cls, negatives: Tensor, num_items: int) -> "Drawn":
        """Of items, int64 (B, n): distinct ones, where more are drawn than there are items, else as they are."""
        if negatives.numel() < num_items:
            return cls(negatives.flatten(), torch.arange(negatives.numel(), device=negatives.device).view_as(negatives))
        present = torch.zeros(num_items, dtype=torch.int64, device=negatives.device)
        present[negatives.flatten()] = 1
        return cls(present.nonzero().squeeze(1), (present.cumsum(0) - 1)[negatives])

    @property
    def times(self) -> Tensor:
        """How often each of `items` was drawn, int64 (V,)."""
        return torch.bincount(self.rows.flatten(), minlength=self.items.numel())


class TripleSource:
    """A `BatchSource`: every rank gets the whole global batch, because ranks hold columns, not rows, of its scores.

    Batch b of epoch e is drawn from streams of (seed, e) and (seed, e, b) alone, so a restart needs no stored state.
    """

    def __init__(
        self, interactions: Interactions, sampler: SamplerConfig, *, batch_size: int, num_negatives: int, seed: int
    ) -> None:
        """Draw from `interactions`, on their device; `num_negatives` 0 draws none.

        Raises:
            DataError: there are to be negatives, and no user has any.
        """
        self._interactions, self._sampler = with_negatives(interactions) if num_negatives else interactions, sampler
        if left_out := interactions.num_pairs - self._interactions.num_pairs:
            logger.warning("%d pairs are never drawn: their users met all items, so have no negatives", left_out)
        self._negatives = sampler.negatives(self._interactions) if num_negatives else None
        self._batch_size, self._num_negatives, self._seed = batch_size, num_negatives, seed

    @property
    def num_batches(self) -> int:
        """Batches of one epoch."""
        return -(-self.num_rows // self._batch_size)

    @property
    def num_rows(self) -> int:
        """Rows of one epoch: as many as there are pairs to draw."""
        return self._interactions.num_pairs

    def rows_of(self, batch: int) -> int:
        """Rows of batch number `batch`."""
        return min(self._batch_size, self.num_rows - batch * self._batch_size)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches `start_batch`, … of that epoch; the same arguments always give the same batches."""
        pairs = epoch_pairs(self._interactions, self._sampler.positives, self._generator(epoch, -1))
        for number in range(start_batch, self.num_batches):
            chosen = pairs[number * self._batch_size : (number + 1) * self._batch_size]
            yield self._batch(chosen, self._generator(epoch, number))

    def _generator(self, epoch: int, batch: int) -> torch.Generator:
        digest = hashlib.sha256(f"{self._seed}/triples/{epoch}/{batch}".encode()).digest()
        generator = torch.Generator(self._interactions.users.device)
        return generator.manual_seed(int.from_bytes(digest[:8], "little", signed=True))

    def _batch(self, pairs: Tensor, generator: torch.Generator) -> Batch:
        users, positives = self._interactions.users[pairs], self._interactions.items[pairs]
        negatives = users[:0]
        if self._negatives is not None:
            negatives = self._negatives.draw(users, self._num_negatives, generator).flatten()
        ones = torch.ones_like(users)
        sparse = KeyedJaggedTensor(
            keys=[USER, POSITIVE, NEGATIVE],
            values=torch.cat([users, positives, negatives]),
            lengths=torch.cat([ones, ones, ones * self._num_negatives]),
        )
        return Batch(users.new_empty(len(users), 0, dtype=torch.float32), sparse, ones.float())
