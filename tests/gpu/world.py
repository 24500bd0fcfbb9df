"""One collection, model and stream of batches for every device, and one way to train and to read them back.

Nothing here needs a GPU: `test_same_path_on_cpu.py` runs all of it on the CPU.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.batch import Batch
from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.core.specs import Distribution, FeatureSpec, Init, Pooling
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.full import FullConfig
from recsys.embeddings.hash import HashConfig
from recsys.embeddings.method import MethodConfig
from recsys.embeddings.mixed import Assignment, MixedConfig
from recsys.embeddings.quotient_remainder import Combine, QuotientRemainderConfig
from recsys.embeddings.unified import UnifiedConfig
from recsys.models.ctr import CtrModel
from recsys.models.dcnv2 import DCNv2Config
from recsys.train.config import DeviceConfig, OptimizerConfig, TableOptimizer, TrainConfig
from recsys.train.session import Session, shard
from recsys.train.tables import initialize_tables
from recsys.train.trainer import Trainer
from tests.contract import methods

NUM_DENSE, WIDTH, BATCH, ROWS = 3, 8, 64, 1024
SIZES = {"user": 1000, "item": 300, "tags": 50}
FEATURES = [
    FeatureSpec(name="user", embedding_dim=WIDTH, num_embeddings=SIZES["user"], max_length=1),
    FeatureSpec(name="item", embedding_dim=WIDTH, num_embeddings=SIZES["item"], max_length=1),
    FeatureSpec(name="tags", embedding_dim=WIDTH, num_embeddings=SIZES["tags"], pooling=Pooling.MEAN),
]
INIT = Init(distribution=Distribution.UNIFORM, scale=0.3)
METHODS: dict[str, MethodConfig] = {
    "full": FullConfig(init=INIT),
    "hash": HashConfig(init=INIT, compression_ratio=3),
    "quotient_remainder": QuotientRemainderConfig(init=INIT, compression_ratio=2),
    "quotient_remainder_sum": QuotientRemainderConfig(init=INIT, compression_ratio=2, combine=Combine.SUM),
    "unified": UnifiedConfig(init=INIT, compression_ratio=3, num_lookups=2),
    "mixed": MixedConfig(
        default=QuotientRemainderConfig(init=INIT, compression_ratio=2),
        assignments=[Assignment(features=["user"], method=UnifiedConfig(init=INIT, compression_ratio=2))],
    ),
}


def _of_yaml(method: str) -> MethodConfig | None:
    """The method with initial weights that matter at once; None where its yaml leaves something to the user."""
    config = methods.given(method)
    return None if config is None else replace(config, init=INIT)


ALL_METHODS = METHODS | {
    name: config for name in methods.METHODS if name not in METHODS and (config := _of_yaml(name)) is not None
}
"""Those above and whatever `conf/embedding` holds beside."""


def plan_of(method: str, width: int = WIDTH) -> TablePlan:
    features = [replace(feature, embedding_dim=width) for feature in FEATURES]
    for ratio in (None,) if method in METHODS else (3, 1.5, None):
        config = ALL_METHODS[method]
        try:
            return (config if ratio is None else replace(config, compression_ratio=ratio)).plan(features)
        except ConfigError:
            continue
    raise AssertionError(method)


def batch(number: int) -> Batch:
    """Batch `number`, on the CPU; one column holds 0 to 3 ids a row, and ids repeat."""
    generator = torch.Generator().manual_seed(number)
    lengths = torch.randint(4, (BATCH,), generator=generator)
    ids = {
        "user": torch.randint(SIZES["user"], (BATCH,), generator=generator),
        "item": torch.randint(SIZES["item"], (BATCH,), generator=generator),
        "tags": torch.randint(SIZES["tags"], (int(lengths.sum()),), generator=generator),
    }
    ones = torch.ones(BATCH, dtype=torch.int64)
    sparse = KeyedJaggedTensor(
        keys=list(ids), values=torch.cat(list(ids.values())), lengths=torch.cat([ones, ones, lengths])
    )
    labels = ((ids["user"] % 2 + ids["item"] % 3) > 1).float()
    return Batch(torch.randn(BATCH, NUM_DENSE, generator=generator), sparse, labels)


class Batches:
    """`ROWS` rows; every epoch the same order, so that two runs can be compared step by step."""

    num_rows = ROWS
    num_batches = ROWS // BATCH

    def rows_of(self, batch: int) -> int:
        return BATCH

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        yield from (batch(number) for number in range(start_batch, self.num_batches))


def embeddings_session(
    method: str, table: TableOptimizer, device: torch.device, width: int = WIDTH
) -> tuple[Session, TablePlan]:
    """A sharded collection alone, with weights that depend on the plan only."""
    plan = plan_of(method, width)
    torch.manual_seed(3)  # of what combiners own
    collection = PlannedEmbeddingBagCollection(plan, torch.device("meta"))
    optimizer = OptimizerConfig(table=table, table_learning_rate=0.05)
    session = shard(collection, optimizer, DeviceConfig(device=device.type), device)
    initialize_tables(session.model.state_dict(), plan, seed=5)
    return session, plan


def step(session: Session, number: int) -> Tensor:
    """One fused step of a collection alone on batch `number`; returns its output, on the CPU."""
    session.optimizer.zero_grad()
    output: Tensor = session.model(batch(number).sparse.to(session.device)).values()
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(100 + number))
    output.backward(upstream.to(session.device))
    session.optimizer.step()
    return output.detach().cpu()


def model_session(run_on: DeviceConfig, device: torch.device, table: TableOptimizer) -> tuple[Session, TablePlan]:
    """DCNv2 over the mixed plan."""
    plan = plan_of("mixed")
    torch.manual_seed(3)
    config = DCNv2Config(embedding_dim=WIDTH, num_cross_layers=2, hidden_units=[16], batch_norm=False, dropout=0.0)
    head: nn.Module = config.build([entry.feature for entry in plan.features], NUM_DENSE)
    model = CtrModel(PlannedEmbeddingBagCollection(plan, torch.device("meta")), head)
    session = shard(model, OptimizerConfig(table=table, table_learning_rate=0.05), run_on, device)
    initialize_tables(session.model.state_dict(), plan, seed=5)
    return session, plan


def train(
    folder: Path, run_on: DeviceConfig, device: torch.device, *, epochs: int = 2, table: TableOptimizer
) -> tuple[Session, list[dict[str, float]]]:
    """Train, or go on training, in `folder`; returns the session with the best weights, and one record an epoch."""
    session, plan = model_session(run_on, device, table)
    optimizer = OptimizerConfig(table=table, table_learning_rate=0.05, dense_learning_rate=0.01)
    config = TrainConfig(epochs=epochs, batch_size=BATCH, eval_batch_size=BATCH, optimizer=optimizer, run_on=run_on)
    progress = Trainer(session, plan, config, folder).run(Batches(), Batches(), seed=11)
    return session, progress.history


def weights(session: Session) -> dict[str, Tensor]:
    """Copies of all weights, whole and on the CPU; for one rank."""
    found = {}
    for name, tensor in session.model.state_dict().items():
        shards = tensor.local_shards() if hasattr(tensor, "local_shards") else []
        whole = torch.cat([part.tensor for part in shards], dim=_cut(shards)) if shards else tensor
        found[name.replace("module.", "")] = whole.detach().cpu().clone()
    return found


def _cut(shards: list) -> int:  # type: ignore[type-arg]
    """Dimension along which a table is cut into this rank's shards."""
    return 1 if shards[-1].metadata.shard_offsets[-1] else 0


def assert_same_weights(got: dict[str, Tensor], want: dict[str, Tensor], *, tolerance: float) -> None:
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        note = partial("{0}: {1}".format, name)
        torch.testing.assert_close(got[name], tensor, rtol=tolerance, atol=tolerance, msg=note)
