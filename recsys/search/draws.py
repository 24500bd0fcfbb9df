"""Draws of a step that do not depend on which rank has which rows: ranks together draw what one process does."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from recsys.core.batch import Batch
from recsys.core.specs import FeatureSpec, Pooling


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of a step's draws, on the CPU, equal on all ranks."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def draw_by_row(
    batch: Batch, high: Sequence[int], generator: torch.Generator, *, rank: int, world_size: int
) -> list[Tensor]:
    """For each of some features a number of every row of the global batch, of which this rank's are returned.

    Args:
        batch: this rank's share; its padding gets a number that counts for nothing.
        high: of each feature, numbers are drawn from 1 to this.
        generator: equal on all ranks.
        rank, world_size: of this process. With several ranks this is a collective call.

    Returns:
        Of each feature int64 (B,), on the CPU.
    """
    own = batch.labels.shape[0]
    counts = [torch.tensor([own]) for _ in range(world_size)]
    if world_size > 1:
        dist.all_gather(counts, torch.tensor([own]))
    first, total = (int(sum(part)) for part in (counts[:rank], counts))
    missing = batch.dense.shape[0] - own
    return [
        torch.nn.functional.pad(
            torch.randint(1, each + 1, (total,), generator=generator)[first : first + own], (0, missing), value=1
        )
        for each in high
    ]


def rows_of_ids(feature: FeatureSpec, batch: Batch) -> Tensor:
    """The batch's row that each id of a feature is of, int64 (N,), ids in the order in which combiners get them.

    That is one id a row where no read holds more, and all ids of the jagged column otherwise; reads one after the
    other.
    """
    single = all(read.max_length == 1 and read.pooling is not Pooling.NONE for read in feature.reads)
    found = []
    for read in feature.reads:
        lengths = batch.sparse[read.source].lengths()
        rows = torch.arange(lengths.numel(), device=lengths.device)
        found.append(rows if single else rows.repeat_interleave(lengths))
    return torch.cat(found)
