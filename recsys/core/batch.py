"""`Batch`: what a loader yields and a model consumes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable


@dataclass
class Batch(Pipelineable):
    """B rows: `dense` float32 (B, num_dense), `sparse` ids by source column, `labels` float32 (L,).

    `labels` of T tasks are (L, T), the main one's first.
    `sparse` has weights where a column has them, with 1 for every id of the others.
    `weights` float32 (L,), 0 or more: how many rows each counts as in losses and metrics; None: all count alike.
    `mean_weight` is that of the global batch's rows, so that sums over rows, divided by it, are means by weight once
    they are divided by the number of rows. It is 1 without weights, and where all weights are 0.

    The last B - L rows are padding: a sharded look-up needs equally many rows on every rank, and the rows of a global
    batch may not divide by the ranks. They have no ids, and no logit of theirs counts.
    """

    dense: torch.Tensor
    sparse: KeyedJaggedTensor
    labels: torch.Tensor
    weights: torch.Tensor | None = None
    mean_weight: float = 1.0

    def padded(self, num_rows: int) -> "Batch":
        """This batch with `num_rows` rows, of which those beyond its own are padding; itself if it has as many."""
        missing = num_rows - self.dense.shape[0]
        if missing <= 0:
            return self
        keys = self.sparse.keys()
        lengths = self.sparse.lengths().view(len(keys), -1)
        sparse = KeyedJaggedTensor(
            keys=keys,
            values=self.sparse.values(),
            lengths=torch.nn.functional.pad(lengths, (0, missing)).reshape(-1),
            weights=self.sparse.weights_or_none(),
        )
        return replace(self, dense=torch.nn.functional.pad(self.dense, (0, 0, 0, missing)), sparse=sparse)

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """A copy on `device`."""
        return replace(
            self,
            dense=self.dense.to(device, non_blocking=non_blocking),
            sparse=self.sparse.to(device, non_blocking=non_blocking),
            labels=self.labels.to(device, non_blocking=non_blocking),
            weights=None if self.weights is None else self.weights.to(device, non_blocking=non_blocking),
        )

    def record_stream(self, stream: torch.Stream) -> None:
        """Keep the memory until `stream` has used it."""
        self.dense.record_stream(stream)
        self.sparse.record_stream(stream)  # type: ignore[arg-type]  # TorchRec names the CUDA class
        self.labels.record_stream(stream)
        if self.weights is not None:
            self.weights.record_stream(stream)

    def pin_memory(self) -> "Batch":
        """A copy in page-locked memory, for asynchronous transfer."""
        return replace(
            self,
            dense=self.dense.pin_memory(),
            sparse=self.sparse.pin_memory(),
            labels=self.labels.pin_memory(),
            weights=None if self.weights is None else self.weights.pin_memory(),
        )


def of_task(values: torch.Tensor, task: int) -> torch.Tensor:
    """What labels or logits say of one of T tasks: (N,) of (N, T), or of (N,), which are those of the only one."""
    return values if values.dim() == 1 else values[:, task].contiguous()


class BatchSource(Protocol):
    """A finite, repeatable stream of batches: this rank's share of every global batch."""

    @property
    def num_batches(self) -> int:
        """Batches of one epoch; equal on every rank."""

    @property
    def num_rows(self) -> int:
        """Rows of one epoch over all ranks."""

    def rows_of(self, batch: int) -> int:
        """Rows of global batch number `batch` (in [0, num_batches)), over all ranks."""

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches `start_batch`, … of that epoch; the same arguments always give the same batches."""
