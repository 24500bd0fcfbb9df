"""What a session optimises: dense Adam as plain torch does it, regularisation, learning-rate schedule, refusals."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from recsys.core.errors import CheckpointError, ConfigError
from recsys.core.plan import TablePlan
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.dhe import DHEConfig
from recsys.embeddings.dpq import DPQConfig
from recsys.embeddings.full import FullConfig
from recsys.embeddings.mde import MdeConfig
from recsys.embeddings.method import MethodConfig
from recsys.embeddings.narrow import NarrowConfig
from recsys.models.ctr import CtrModel
from recsys.models.dcnv2 import DCNv2Config
from recsys.train import checkpoint
from recsys.train.config import (
    DeviceConfig,
    OptimizerConfig,
    Plateau,
    Sharding,
    TableMemory,
    TableOptimizer,
    TrainConfig,
)
from recsys.train.session import Session, process_group, shard
from recsys.train.tables import initialize_tables
from recsys.train.trainer import Trainer
from tests.train.worker import BATCH, FEATURES, NUM_DENSE, Ordered, Rows, build

STEPS = 4
REGULARIZER = 0.05


@pytest.fixture
def device() -> Iterator[torch.device]:
    with process_group(DeviceConfig()) as found:
        yield found


def dense_adam(device: torch.device) -> tuple[Session, TablePlan, OptimizerConfig]:
    config = OptimizerConfig(table=TableOptimizer.ADAM, table_learning_rate=0.02, table_regularizer=REGULARIZER)
    model, plan = build()
    session = shard(model, config, DeviceConfig(), device)
    initialize_tables(session.model.state_dict(), plan, seed=5)
    return session, plan, config


def test_dense_adam_with_whole_table_regulariser_equals_plain_torch(device: torch.device, tmp_path: Path) -> None:
    session, plan, config = dense_adam(device)
    plain, _ = build()
    plain = CtrModel(PlannedEmbeddingBagCollection(plan), plain.head)  # tables with memory
    plain.load_state_dict({key: value.clone() for key, value in session.model.state_dict().items()})
    tables = [p for name, p in plain.named_parameters() if name.startswith("embeddings.")]
    rest = [p for name, p in plain.named_parameters() if name.startswith("head.")]
    optimizer = torch.optim.Adam([{"params": tables, "lr": 0.02}, {"params": rest, "lr": 1e-3}])
    trainer = Trainer(session, plan, TrainConfig(batch_size=BATCH, optimizer=config), tmp_path)
    for number, batch in enumerate(Rows(0, 1).epoch(0)):
        if number == STEPS:
            break
        trainer._step(batch, batch.labels.numel())
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(plain(batch.dense, batch.sparse), batch.labels)
        loss = loss + REGULARIZER / 2 * sum(table.square().sum() for table in tables)
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 10.0)
        optimizer.step()
    sharded = session.model.state_dict()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(sharded[name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    "config",
    [
        DHEConfig(num_hashes=4, num_layers=2, batch_norm=True, budget_mib=0.002),
        NarrowConfig(compression_ratio=2),
        MdeConfig(compression_ratio=2, blocks=2),
        DPQConfig(compression_ratio=2),
    ],
    ids=lambda config: type(config).__name__,
)
def test_the_regulariser_reaches_everything_that_embeddings_are_made_of(
    config: MethodConfig, device: torch.device, tmp_path: Path
) -> None:
    """Gradients with lambda, less those without, are lambda times the weight; the head has none of it."""
    plan = config.plan([replace(feature, octave_counts=(9, 5, 5, 5)) for feature in FEATURES])
    gradients = []
    for regularizer in (0.0, REGULARIZER):
        optimizer = OptimizerConfig(table=TableOptimizer.ADAM, table_regularizer=regularizer, clip_norm=0.0)
        torch.manual_seed(3)
        head = DCNv2Config(embedding_dim=6, num_cross_layers=1, hidden_units=[4], batch_norm=False, dropout=0.0)
        model = CtrModel(PlannedEmbeddingBagCollection(plan), head.build(FEATURES, NUM_DENSE))
        session = shard(model, optimizer, DeviceConfig(), device)
        initialize_tables(session.model.state_dict(), plan, seed=5)
        weights = {name: p.detach().clone() for name, p in session.model.named_parameters()}
        trainer = Trainer(session, plan, TrainConfig(batch_size=BATCH, optimizer=optimizer), tmp_path)
        batch = next(Rows(0, 1).epoch(0))
        trainer._step(batch, batch.labels.numel())
        gradients.append({name: p.grad for name, p in session.model.named_parameters()})
    without, regularised = gradients
    assert any("combiners" in name for name in weights)
    for name, weight in weights.items():
        got, plain = regularised[name], without[name]
        if got is None or plain is None:  # a codebook learns from a callback of its own, which is not here
            assert "codebook" in name
            continue
        share = REGULARIZER if name.startswith("embeddings.") else 0.0
        torch.testing.assert_close(got - plain, share * weight, rtol=1e-3, atol=1e-6, msg=name)


def test_plateau_lowers_every_learning_rate_and_stops(device: torch.device, tmp_path: Path) -> None:
    session, plan, optimizer = dense_adam(device)
    plateau = Plateau(factor=0.1, min_learning_rate=1e-4, stop_after=2)
    # Nothing improves at learning rates this low: the first epoch is the best, the next two are stale.
    frozen = [1e-12, 1e-12]
    session.scale_learning_rates(frozen, 1.0, 0.0)
    config = TrainConfig(epochs=9, batch_size=BATCH, eval_batch_size=BATCH, optimizer=optimizer, plateau=plateau)
    progress = Trainer(session, plan, config, tmp_path).run(Rows(0, 1), Ordered(0, 1), seed=1)
    assert [record["epoch"] for record in progress.history] == [1, 2, 3]
    assert progress.best_epoch == 1
    assert progress.learning_rate_factor == pytest.approx(0.01)


def test_learning_rates_fall_to_the_floor_and_no_lower(device: torch.device) -> None:
    session, _, _ = dense_adam(device)
    session.scale_learning_rates([0.02, 1e-3], 1e-2, 1e-4)
    assert session.learning_rates() == pytest.approx([2e-4, 1e-4])


def test_checkpoint_of_another_plan_is_refused(device: torch.device, tmp_path: Path) -> None:
    session, plan, config = dense_adam(device)
    training = TrainConfig(epochs=1, batch_size=BATCH, eval_batch_size=BATCH, optimizer=config)
    Trainer(session, plan, training, tmp_path).run(Rows(0, 1), Ordered(0, 1), seed=1)
    other = FullConfig().plan(FEATURES)
    with pytest.raises(CheckpointError, match=other.fingerprint):
        checkpoint.read_state(tmp_path / "last", other)
    head = DCNv2Config(embedding_dim=6).build(FEATURES, NUM_DENSE)
    model = CtrModel(PlannedEmbeddingBagCollection(other), head)
    with pytest.raises(CheckpointError, match="written for another model"):
        checkpoint.load(tmp_path / "last", {"model": model.state_dict()})


Config = type[OptimizerConfig] | type[Plateau] | type[DeviceConfig] | type[TrainConfig]


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (OptimizerConfig, {"table_regularizer": 0.1}, "table_regularizer=0.1 needs gradients of whole tables"),
        (OptimizerConfig, {"dense_learning_rate": 0.0}, "dense_learning_rate=0.0: must be above 0"),
        (OptimizerConfig, {"dense_learning_rate": math.inf}, "dense_learning_rate=inf: must be above 0, and finite"),
        (OptimizerConfig, {"table_learning_rate": -1.0}, "table_learning_rate=-1.0: must be above 0"),
        (OptimizerConfig, {"table_learning_rate": math.nan}, "table_learning_rate=nan: must be above 0, and finite"),
        (OptimizerConfig, {"table_regularizer": -0.1}, "table_regularizer=-0.1: must be 0 or more"),
        (OptimizerConfig, {"clip_norm": -1.0}, "clip_norm=-1.0: must be 0 or more"),
        (OptimizerConfig, {"dense_weight_decay": -0.1}, "dense_weight_decay=-0.1: must be 0 or more"),
        (Plateau, {"factor": 0.0}, "factor=0.0: must be above 0 and at most 1"),
        (Plateau, {"factor": 1.1}, "factor=1.1: must be above 0 and at most 1"),
        (Plateau, {"min_learning_rate": -1e-6}, "min_learning_rate=-1e-06: must be 0 or more"),
        (Plateau, {"stop_after": 0}, "stop_after=0: must be 1 or more"),
        (DeviceConfig, {"num_processes": 0}, "num_processes=0: must be 1 or more"),
        (DeviceConfig, {"num_threads": -1}, "num_threads=-1: must be 0 or more"),
        (DeviceConfig, {"cache_load_factor": 0.0}, "cache_load_factor=0.0: must be above 0 and at most 1"),
        (DeviceConfig, {"cache_load_factor": 1.5}, "cache_load_factor=1.5: must be above 0 and at most 1"),
        (TrainConfig, {"epochs": 0}, "epochs=0: must be 1 or more"),
        (TrainConfig, {"shuffle_rows": 0}, "shuffle_rows=0: must be 1 or more"),
        (TrainConfig, {"checkpoint_every": -1}, "checkpoint_every=-1: must be 0 or more"),
    ],
)
def test_impossible_values_are_refused(config: Config, values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**values)  # type: ignore[arg-type]


def test_values_at_their_bounds_are_taken() -> None:
    OptimizerConfig(dense_weight_decay=0.0, clip_norm=0.0, table_regularizer=0.0)
    Plateau(factor=1.0, min_learning_rate=0.0, stop_after=1)
    DeviceConfig(cache_load_factor=1.0, num_threads=0)
    TrainConfig(shuffle_rows=1, checkpoint_every=0)


@pytest.mark.parametrize(
    ("optimizer", "run_on", "message"),
    [
        (OptimizerConfig(table=TableOptimizer.ADAM), DeviceConfig(sharding=Sharding.ROW_WISE), "Adam on a CPU"),
        (OptimizerConfig(), DeviceConfig(sharding=Sharding.DATA_PARALLEL), "needs optimizer.table=adam"),
        (OptimizerConfig(), DeviceConfig(table_memory=TableMemory.UVM_CACHING), "behind a GPU's cache"),
    ],
)
def test_impossible_layouts_are_refused(
    optimizer: OptimizerConfig, run_on: DeviceConfig, message: str, device: torch.device
) -> None:
    with pytest.raises(ConfigError, match=message):
        shard(build()[0], optimizer, run_on, device)
