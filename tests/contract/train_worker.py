"""Every method trained on a small set, as a script: `python -m tests.contract.train_worker FOLDER`, or under torchrun.

Rank 0 writes FOLDER/METHOD.pt: the losses of all steps, the final weights, and, on one process, the weights of a
training that was interrupted and taken up again; or FOLDER/METHOD.txt: why it failed.
"""

import sys
import traceback
from pathlib import Path

import torch
import torch.distributed as dist

from pipelines.entry import leave
from recsys.core.specs import FeatureSpec, Pooling
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.method import MethodConfig
from recsys.models.ctr import CtrModel
from recsys.models.dcnv2 import DCNv2Config
from recsys.train import checkpoint
from recsys.train.config import DeviceConfig, OptimizerConfig, Sharding, TrainConfig
from recsys.train.session import process_group, shard
from recsys.train.tables import initialize_tables
from recsys.train.trainer import Trainer
from tests.contract.methods import METHODS, compressed, given
from tests.train.worker import BATCH, NUM_DENSE, Losses, Ordered, Rows

FEATURES = (
    FeatureSpec(name="user", embedding_dim=8, num_embeddings=40, max_length=1, octave_counts=(30, 20, 20, 10, 5, 5)),
    FeatureSpec(name="item", embedding_dim=8, num_embeddings=30, max_length=1, octave_counts=(30, 20, 20, 10, 5)),
    FeatureSpec(name="tags", embedding_dim=8, num_embeddings=20, max_length=4, pooling=Pooling.MEAN),
)
RUN_ON = DeviceConfig(sharding=Sharding.ROW_WISE)
OPTIMIZER = OptimizerConfig(table_learning_rate=0.05, dense_learning_rate=0.01)
EPOCHS = 2


def train(config: MethodConfig, folder: Path, device: torch.device, *, epochs: int) -> list[float]:
    """Train, or go on, in `folder`: losses of the steps done now."""
    plan = config.plan(FEATURES)
    torch.manual_seed(3)
    head = DCNv2Config(embedding_dim=8, num_cross_layers=2, hidden_units=[8], batch_norm=False, dropout=0.0).build(
        [entry.feature for entry in plan.features], NUM_DENSE
    )
    model = CtrModel(PlannedEmbeddingBagCollection(plan, torch.device("meta")), head)
    session = shard(model, OPTIMIZER, RUN_ON, device)
    initialize_tables(session.model.state_dict(), plan, seed=5)
    losses = Losses()
    options = TrainConfig(epochs=epochs, batch_size=BATCH, eval_batch_size=BATCH, optimizer=OPTIMIZER, run_on=RUN_ON)
    trainer = Trainer(session, plan, options, folder, [losses, *config.callbacks(plan)])
    shares = (session.rank, session.world_size)
    trainer.run(Rows(*shares), Ordered(*shares), seed=11)
    return losses.values


def outcome(method: str, folder: Path, device: torch.device) -> dict[str, object]:
    config = compressed(method, FEATURES)
    losses = train(config, folder / f"{method}_whole", device, epochs=EPOCHS)
    found: dict[str, object] = {"losses": losses}
    if dist.get_world_size() == 1:
        train(config, folder / f"{method}_parts", device, epochs=1)
        train(config, folder / f"{method}_parts", device, epochs=EPOCHS)
        found["resumed"] = checkpoint.read_tensors(folder / f"{method}_parts" / "last", "model.")
    if dist.get_rank() == 0:
        found["weights"] = checkpoint.read_tensors(folder / f"{method}_whole" / "last", "model.")
    return found


def main(folder: Path) -> None:
    with process_group(RUN_ON) as device:
        for method in METHODS:
            if given(method) is None:
                continue
            try:
                found = outcome(method, folder, device)
            except Exception:  # noqa: BLE001  # told by the test of that method; the others go on
                (folder / f"{method}.txt").write_text(traceback.format_exc())
                continue
            if dist.get_rank() == 0:
                torch.save(found, folder / f"{method}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    if dist.is_torchelastic_launched():
        leave()
