"""A small training run as a script, for tests that need several ranks or a process to kill.

`python worker.py FOLDER {table_wise|row_wise|data_parallel} EPOCHS [weighted]`, alone or under torchrun. Rank 0 writes
FOLDER/losses.json and FOLDER/weights.pt.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from pipelines.entry import leave
from recsys.core.batch import Batch
from recsys.core.callback import Callback, TrainingSession
from recsys.core.plan import TablePlan
from recsys.core.specs import Distribution, FeatureSpec, Init, Pooling
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.full import FullConfig
from recsys.embeddings.mixed import Assignment, MixedConfig
from recsys.embeddings.quotient_remainder import QuotientRemainderConfig
from recsys.embeddings.unified import UnifiedConfig
from recsys.models.ctr import CtrModel
from recsys.models.dcnv2 import DCNv2Config
from recsys.train import checkpoint
from recsys.train.config import DeviceConfig, OptimizerConfig, Sharding, TableOptimizer, TrainConfig
from recsys.train.session import process_group, shard
from recsys.train.tables import initialize_tables
from recsys.train.trainer import Trainer

BATCH, ROWS, NUM_DENSE = 16, 101, 3  # the last batch is short, and odd: two ranks have unequal shares
FEATURES = [
    FeatureSpec(name="user", embedding_dim=6, num_embeddings=40, max_length=1),
    FeatureSpec(name="item", embedding_dim=6, num_embeddings=30),
    FeatureSpec(name="tags", embedding_dim=6, num_embeddings=20, pooling=Pooling.MEAN),
]


class Rows:
    """Random rows, the r-th share of every batch on rank r; one feature is multi-valued with empty rows."""

    def __init__(self, rank: int, world_size: int, weights: torch.Tensor | None = None) -> None:
        self._weights = weights
        generator = torch.Generator().manual_seed(7)
        self._dense = torch.randn(ROWS, NUM_DENSE, generator=generator)
        self._user = torch.randint(40, (ROWS,), generator=generator)
        self._item = torch.randint(30, (ROWS,), generator=generator)
        self._tags = [
            torch.randint(20, (int(n),), generator=generator) for n in torch.randint(4, (ROWS,), generator=generator)
        ]
        self._labels = ((self._user % 2 + self._item % 3) > 1).float()
        self._rank, self._world_size = rank, world_size

    @property
    def num_batches(self) -> int:
        return -(-ROWS // BATCH)

    @property
    def num_rows(self) -> int:
        return ROWS

    def rows_of(self, batch: int) -> int:
        return min(BATCH, ROWS - batch * BATCH)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(epoch))
        for number in range(start_batch, self.num_batches):
            yield self._share(order[number * BATCH : (number + 1) * BATCH])

    def _share(self, rows: torch.Tensor) -> Batch:
        shares = torch.tensor_split(rows, self._world_size)
        batch = self._batch(shares[self._rank])
        if self._weights is not None:
            batch.weights, batch.mean_weight = self._weights[shares[self._rank]], float(self._weights[rows].mean())
        return batch.padded(max(len(share) for share in shares))

    def _batch(self, rows: torch.Tensor) -> Batch:
        tags = [self._tags[row] for row in rows.tolist()]
        ones = torch.ones(len(rows), dtype=torch.int64)
        sparse = KeyedJaggedTensor(
            keys=["user", "item", "tags"],
            values=torch.cat([self._user[rows], self._item[rows], *tags]),
            lengths=torch.cat([ones, ones, torch.tensor([len(t) for t in tags])]),
        )
        return Batch(self._dense[rows], sparse, self._labels[rows])


class Ordered(Rows):
    """The same rows in file order."""

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        for number in range(start_batch, self.num_batches):
            yield self._share(torch.arange(number * BATCH, min((number + 1) * BATCH, ROWS)))


class Losses(Callback):
    """Keeps the global loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_step_end(self, session: TrainingSession, step: int, loss: torch.Tensor) -> None:
        mean = loss.double().clone()
        dist.all_reduce(mean)
        self.values.append(float(mean) / session.world_size)


def build() -> tuple[CtrModel, TablePlan]:
    """A model over a mixed plan: quotient-remainder by product, multiplexed with two look-ups, full."""
    init = Init(distribution=Distribution.UNIFORM, scale=0.3)
    plan = MixedConfig(
        default=FullConfig(init=init),
        assignments=[
            Assignment(features=["item"], method=QuotientRemainderConfig(compression_ratio=2, init=init)),
            Assignment(features=["user"], method=UnifiedConfig(compression_ratio=2, num_lookups=2, init=init)),
        ],
    ).plan(FEATURES)
    torch.manual_seed(3)
    config = DCNv2Config(embedding_dim=6, num_cross_layers=2, hidden_units=[8], batch_norm=False, dropout=0.0)
    head: nn.Module = config.build([entry.feature for entry in plan.features], NUM_DENSE)
    return CtrModel(PlannedEmbeddingBagCollection(plan, torch.device("meta")), head), plan


def drawn_weights() -> torch.Tensor:
    """Some rows weigh nothing."""
    return torch.randint(4, (ROWS,), generator=torch.Generator().manual_seed(8)).float()


def main(folder: Path, sharding: str, epochs: int, *, weighted: bool) -> None:
    run_on = DeviceConfig(sharding=Sharding(sharding))
    adam = sharding == "data_parallel"
    optimizer = OptimizerConfig(
        table=TableOptimizer.ADAM if adam else TableOptimizer.ROWWISE_ADAGRAD,
        table_learning_rate=0.05,
        table_regularizer=0.01 if adam else 0.0,
        dense_learning_rate=0.01,
    )
    with process_group(run_on) as device:
        model, plan = build()
        session = shard(model, optimizer, run_on, device)
        initialize_tables(session.model.state_dict(), plan, seed=5)
        losses = Losses()
        config = TrainConfig(
            epochs=epochs,
            batch_size=BATCH,
            eval_batch_size=BATCH,
            optimizer=optimizer,
            run_on=run_on,
            checkpoint_every=3,
        )
        trainer = Trainer(session, plan, config, folder / "checkpoints", [losses])
        shares = (session.rank, session.world_size, drawn_weights() if weighted else None)
        progress = trainer.run(Rows(*shares), Ordered(*shares), seed=11)
        if session.is_main:
            aucs = [record["validation_auc"] for record in progress.history]
            (folder / "losses.json").write_text(json.dumps({"losses": losses.values, "auc": aucs}))
            torch.save(checkpoint.read_tensors(folder / "checkpoints" / "last", "model."), folder / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), weighted="weighted" in sys.argv[4:])
    if dist.is_torchelastic_launched():
        leave()  # as a rank of a pipeline does
