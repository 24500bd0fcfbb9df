"""Logits of a data split on all ranks, in the split's row order."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recsys.core.batch import BatchSource, of_task
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


class Scores(NamedTuple):
    """Rows of a split in its order, float32 (N,) each, on the CPU, equal on every rank.

    Of T tasks logits and labels are (N, T); logits of a model that learns the main task alone are (N,).
    """

    logits: Tensor
    labels: Tensor
    weights: Tensor | None  # None: all rows count alike

    def of(self, task: int) -> "Scores":
        """Those of one task, (N,) each."""
        return Scores(of_task(self.logits, task), of_task(self.labels, task), self.weights)


def score(session: Scorer, source: BatchSource, description: str) -> Scores:
    """Score every row once, without dropout and with frozen batch statistics.

    Args:
        session: the model on its ranks.
        source: batches in file order, rank r holding the r-th share of each.
        description: for the progress bar.

    Returns:
        All rows of the split.
    """
    parts = list(score_in_parts(session, source, description)) or [Scores(torch.empty(0), torch.empty(0), None)]
    weights = [part.weights for part in parts if part.weights is not None]
    return Scores(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat(weights) if weights else None,
    )


@torch.no_grad()
def score_in_parts(session: Scorer, source: BatchSource, description: str) -> Iterator[Scores]:
    """Yield what `score` returns, arguments as there, in parts of at most a batch: for more rows than memory.

    All ranks must take all parts.
    """
    session.model.eval()
    with ProgressBar(description, total=source.num_rows, enabled=session.is_main) as bar:
        for batch in source.epoch(0):
            batch = batch.to(session.device)
            logits = session.model(batch.dense, batch.sparse).float().cpu()[: batch.labels.shape[0]]
            weights = None if batch.weights is None else batch.weights.cpu()
            yield from _gathered(Scores(logits, batch.labels.cpu(), weights), session)
            bar.advance(logits.shape[0] * session.world_size)
    session.model.train()


def _gathered(own: Scores, session: Scorer) -> Iterator[Scores]:
    """This batch's rows of every rank, rank by rank: the order of the global batch. Shares may differ in length."""
    if session.world_size == 1:
        yield own
        return
    num_rows, tasks = own.logits.shape[0], own.logits.shape[1:]
    columns = [each.reshape(num_rows, -1) for each in own if each is not None]
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(session.world_size)]
    dist.all_gather(counts, torch.tensor([num_rows]))
    mine = torch.zeros(max(int(count.item()) for count in counts), sum(each.shape[1] for each in columns))
    mine[:num_rows] = torch.cat(columns, 1)
    everyone = [torch.empty_like(mine) for _ in counts]
    dist.all_gather(everyone, mine)
    widths = [each.shape[1] for each in columns]
    for count, found in zip(counts, everyone, strict=True):
        logits, labels, *weights = found[: int(count.item())].split(widths, 1)
        given = weights[0].flatten() if weights else None
        yield Scores(logits.reshape(-1, *tasks), labels.reshape(-1, *tasks), given)
