"""Training steps of any model on given batches, and contestants that take turns: what the training benchmarks share."""

import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.batch import Batch
from recsys.core.callback import Callback
from recsys.core.plan import TablePlan
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.train.config import TrainConfig
from recsys.train.session import shard
from recsys.train.tables import initialize_tables
from recsys.train.trainer import Trainer

Label = TypeVar("Label", bound=Hashable)


class SumHead(nn.Module):
    """Logits that cost next to nothing: the sum of all embeddings of a row, of sequences too."""

    def forward(
        self,
        dense: Tensor,
        embeddings: Tensor,
        sequences: Sequence[Tensor] = (),
        lengths: Sequence[Tensor] = (),
    ) -> Tensor:
        """Return logits, (B,), from dense (B, num_dense), embeddings (B, W) and sequences (B, L, W) each."""
        return torch.stack([embeddings.sum(dim=1), *(sequence.sum(dim=(1, 2)) for sequence in sequences)]).sum(dim=0)


def trainer_step(
    join: Callable[[PlannedEmbeddingBagCollection], nn.Module],
    plan: TablePlan,
    config: TrainConfig,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
) -> Callable[[Batch], None]:
    """A training step, as the trainer does it; needs a process group.

    Args:
        join: makes the model of a collection.
        plan: of the collection.
        config: of the optimizers and the precision.
        device: to train on.
        callbacks: of the method.
    """
    torch.manual_seed(0)
    model = join(PlannedEmbeddingBagCollection(plan, torch.device("meta")))
    session = shard(model, config.optimizer, config.run_on, device)
    initialize_tables(session.model.state_dict(), plan, seed=0)
    trainer = Trainer(session, plan, config, Path(tempfile.gettempdir()), callbacks)
    session.model.train()
    for callback in callbacks:
        callback.on_train_start(session)
    return lambda batch: trainer._step(unseen(batch), batch.labels.numel())


def unseen(batch: Batch) -> Batch:
    """The batch as a loader gives it: a jagged tensor keeps what it has worked out of its lengths."""
    sparse = batch.sparse
    fresh = KeyedJaggedTensor(
        keys=sparse.keys(), values=sparse.values(), lengths=sparse.lengths(), stride=sparse.stride()
    )
    return Batch(batch.dense, fresh, batch.labels)


def endless(epoch: Callable[[int], Iterator[Batch]]) -> Iterator[Batch]:
    """Batches of epoch after epoch."""
    for number in count():
        yield from epoch(number)


def take_turns(
    runs: Mapping[Label, Callable[[], object]],
    num_rounds: int,
    *,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Label, list[float]]:
    """Seconds of each in every round, after `warm_up` rounds that do not count."""
    seconds: dict[Label, list[float]] = {label: [] for label in runs}
    for _ in range(num_rounds + warm_up):
        for label, run in runs.items():
            started = clock()
            run()
            seconds[label].append(clock() - started)
    return {label: taken[warm_up:] for label, taken in seconds.items()}
