"""Logits of a data split on all ranks, in the split's row order."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recsys.core.batch import BatchSource
from recsys.core.progress import ProgressBar


class Scorer(Protocol):
    """A model on its ranks: a session, or a whole copy on each."""

    @property
    def model(self) -> nn.Module:
        """Takes dense and sparse features of this rank's share."""

    @property
    def device(self) -> torch.device:
        """Of this rank."""

    @property
    def world_size(self) -> int:
        """Number of ranks."""

    @property
    def is_main(self) -> bool:
        """True on the rank that writes and prints."""


@dataclass(frozen=True)
class Replica:
    """A whole copy of a model on this rank."""

    model: nn.Module
    device: torch.device

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return dist.get_world_size()

    @property
    def is_main(self) -> bool:
        """True on the rank that writes and prints."""
        return dist.get_rank() == 0


def score(session: Scorer, source: BatchSource, description: str) -> tuple[Tensor, Tensor]:
    """Score every row once, without dropout and with frozen batch statistics.

    Args:
        session: the model on its ranks.
        source: batches in file order, rank r holding the r-th share of each.
        description: for the progress bar.

    Returns:
        (logits, labels), float32, shape (num_rows,), on the CPU, in file order, equal on every rank.
    """
    parts = list(score_in_parts(session, source, description))
    empty = torch.empty(0)
    logits, labels = zip(*parts, strict=True) if parts else ((empty,), (empty,))
    return torch.cat(logits), torch.cat(labels)


@torch.no_grad()
def score_in_parts(session: Scorer, source: BatchSource, description: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what `score` returns, arguments as there, in parts of at most a batch: for more rows than memory.

    All ranks must take all parts.
    """
    session.model.eval()
    with ProgressBar(description, total=source.num_rows, enabled=session.is_main) as bar:
        for batch in source.epoch(0):
            batch = batch.to(session.device)
            logits = session.model(batch.dense, batch.sparse).float().cpu()[: batch.labels.numel()]
            yield from _gathered(logits, batch.labels.cpu(), session)
            bar.advance(logits.numel() * session.world_size)
    session.model.train()


def _gathered(logits: Tensor, labels: Tensor, session: Scorer) -> Iterator[tuple[Tensor, Tensor]]:
    """This batch's rows of every rank, rank by rank: the order of the global batch. Shares may differ in length."""
    if session.world_size == 1:
        yield logits, labels
        return
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(session.world_size)]
    dist.all_gather(counts, torch.tensor([logits.numel()]))
    widest = max(int(count.item()) for count in counts)
    mine = torch.zeros(2, widest)
    mine[0, : logits.numel()], mine[1, : labels.numel()] = logits, labels
    everyone = [torch.empty_like(mine) for _ in counts]
    dist.all_gather(everyone, mine)
    for count, pair in zip(counts, everyone, strict=True):
        yield pair[0, : int(count.item())], pair[1, : int(count.item())]
