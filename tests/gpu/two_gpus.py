"""One run of `world` for `test_training.py`, under torchrun: `two_gpus.py FOLDER SHARDING OUTPUT [DEVICE]`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from pipelines.entry import leave
from recsys.core.batch import Batch
from recsys.train import checkpoint
from recsys.train.config import DeviceConfig, OptimizerConfig, Sharding, TableOptimizer, TrainConfig
from recsys.train.session import process_group
from recsys.train.trainer import Trainer
from tests.gpu import world


class Share(world.Batches):
    """This rank's rows of every batch."""

    def __init__(self, rank: int, world_size: int) -> None:
        self._rank, self._world_size = rank, world_size

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        for whole in super().epoch(epoch, start_batch):
            rows = torch.tensor_split(torch.arange(world.BATCH), self._world_size)[self._rank]
            columns = [[jagged.to_dense()[row] for row in rows] for jagged in whole.sparse.to_dict().values()]
            sparse = KeyedJaggedTensor(
                keys=whole.sparse.keys(),
                values=torch.cat([ids for column in columns for ids in column]).to(torch.int64),
                lengths=torch.tensor([len(ids) for column in columns for ids in column]),
            )
            yield Batch(whole.dense[rows], sparse, whole.labels[rows])


def main(folder: Path, sharding: str, output: Path, device_type: str) -> None:
    run_on = DeviceConfig(device=device_type, sharding=Sharding(sharding))
    table = TableOptimizer.ROWWISE_ADAGRAD
    with process_group(run_on) as device:
        session, plan = world.model_session(run_on, device, table)
        optimizer = OptimizerConfig(table=table, table_learning_rate=0.05, dense_learning_rate=0.01)
        config = TrainConfig(batch_size=world.BATCH, eval_batch_size=world.BATCH, optimizer=optimizer, run_on=run_on)
        shares = Share(session.rank, session.world_size)
        Trainer(session, plan, config, folder).run(shares, shares, seed=11)
        if session.is_main:
            torch.save(checkpoint.read_tensors(folder / "last", "model."), output)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else "cuda")
    leave()
