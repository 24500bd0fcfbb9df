"""Fused optimizers against formulas: the row-wise Adagrad of a table does not know of the columns that pad it."""

import math
import os
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec, Init
from recsys.embeddings.collection import PlannedEmbeddingBagCollection, PlannedEmbeddingCollection
from recsys.embeddings.full import FullConfig
from recsys.train.config import DeviceConfig, OptimizerConfig, Sharding, TableMemory, TableOptimizer
from recsys.train.layout import check_layout, is_fused, topology
from recsys.train.session import Session, process_group, shard
from recsys.train.tables import initialize_tables

WIDTHS = [1, 2, 10, 16]
ROWS, STEPS = 12, 3
EPSILON = 1e-8


@pytest.fixture
def device() -> Iterator[torch.device]:
    with process_group(DeviceConfig()) as found:
        yield found


def plan_of(widths: list[int]) -> TablePlan:
    features = [
        FeatureSpec(name=f"w{width}", embedding_dim=width, num_embeddings=ROWS, max_length=1) for width in widths
    ]
    return FullConfig(init=Init(scale=0.5)).plan(features)


def session_of(plan: TablePlan, collection: nn.Module, device: torch.device, sharding: Sharding) -> Session:
    session = shard(collection, OptimizerConfig(), DeviceConfig(sharding=sharding), device)
    initialize_tables(session.model.state_dict(), plan, seed=5)
    return session


def stored(session: Session) -> dict[str, Tensor]:
    """Copies of the tables by name, padding included."""
    found = {}
    for name, value in session.model.state_dict().items():
        whole = value
        if not isinstance(value, Tensor) or hasattr(value, "local_shards"):
            whole = torch.cat([part.tensor for part in value.local_shards()], dim=1)
        found[name.split(".")[-2]] = whole.detach().clone()
    return found


def exact(weight: Tensor, squares: Tensor, gradient: Tensor, learning_rate: float) -> Tensor:
    """One step of row-wise Adagrad on a table without padding; `squares` (rows,) is brought up to date."""
    squares += gradient.square().mean(dim=1)
    return weight - learning_rate * gradient / (squares.sqrt() + EPSILON).unsqueeze(1)


def train_step(session: Session, plan: TablePlan, number: int, *, pooled: bool) -> dict[str, Tensor]:
    """Step on random ids; returns the gradient of every table on its own width, by table name."""
    generator = torch.Generator().manual_seed(number)
    ids = {entry.feature.source: torch.randint(ROWS, (8,), generator=generator) for entry in plan.features}
    sparse = KeyedJaggedTensor(
        keys=list(ids), values=torch.cat(list(ids.values())), lengths=torch.ones(8 * len(ids), dtype=torch.int64)
    )
    session.optimizer.zero_grad()
    output = session.model(sparse)
    outputs = output.to_dict() if pooled else {name: jagged.values() for name, jagged in output.items()}
    loss, gradients = torch.zeros(()), {}
    for entry in plan.features:
        embedding = outputs[entry.feature.name]
        upstream = torch.randn(embedding.shape, generator=generator)
        loss = loss + (embedding * upstream).sum()
        gradient = torch.zeros(ROWS, entry.feature.embedding_dim)
        gradients[entry.tables[0]] = gradient.index_add(0, ids[entry.feature.source], upstream)
    loss.backward()
    session.optimizer.step()
    return gradients


@pytest.mark.parametrize("sharding", [Sharding.AUTO, Sharding.TABLE_WISE, Sharding.ROW_WISE])
@pytest.mark.parametrize("pooled", [True, False])
def test_default_table_optimizer_is_exact_at_every_width(
    sharding: Sharding, pooled: bool, device: torch.device
) -> None:
    plan = plan_of(WIDTHS)
    kind = PlannedEmbeddingBagCollection if pooled else PlannedEmbeddingCollection
    session = session_of(plan, kind(plan, torch.device("meta")), device, sharding)
    width = {table.name: table.embedding_dim for table in plan.tables}
    expected = {name: weight[:, : width[name]] for name, weight in stored(session).items()}
    squares = {name: torch.zeros(ROWS) for name in expected}
    for number in range(STEPS):
        if number == 2:  # the schedule reaches every kernel
            session.scale_learning_rates(session.learning_rates(), 0.5, 0.0)
        learning_rate = OptimizerConfig().table_learning_rate * (0.5 if number == 2 else 1.0)
        for name, gradient in train_step(session, plan, number, pooled=pooled).items():
            expected[name] = exact(expected[name], squares[name], gradient, learning_rate)
    for name, weight in stored(session).items():
        torch.testing.assert_close(weight[:, : width[name]], expected[name], rtol=1e-5, atol=1e-6, msg=name)
        assert not weight[:, width[name] :].any(), f"{name}: padding moved"


def test_tables_of_equal_padding_share_a_kernel(device: torch.device) -> None:
    def rates(widths: list[int]) -> list[float]:
        plan = plan_of(widths)
        collection = PlannedEmbeddingBagCollection(plan, torch.device("meta"))
        return sorted(session_of(plan, collection, device, Sharding.TABLE_WISE).learning_rates())

    assert rates([4, 8, 16]) == pytest.approx([0.02])
    # 3/4, 6/8 and 9/12 of the columns are the table's own
    assert rates([3, 6, 9, 8]) == pytest.approx([0.02 * math.sqrt(0.75), 0.02])


@pytest.mark.parametrize("table", [TableOptimizer.SGD, TableOptimizer.ADAGRAD])
def test_elementwise_optimizers_need_no_correction(table: TableOptimizer, device: torch.device) -> None:
    collection = PlannedEmbeddingBagCollection(plan_of(WIDTHS), torch.device("meta"))
    session = shard(collection, OptimizerConfig(table=table), DeviceConfig(), device)
    assert session.learning_rates() == pytest.approx([0.02])


def test_tables_that_exceed_memory_are_refused_with_what_they_need(device: torch.device) -> None:
    huge = FeatureSpec(name="huge", embedding_dim=1024, num_embeddings=2**40, max_length=1)
    collection = PlannedEmbeddingBagCollection(FullConfig().plan([huge]), torch.device("meta"))
    with pytest.raises(
        ConfigError, match=r"insufficient storage.*need .*4194304.* GB of host memory; .*have.*compressing"
    ):
        shard(collection, OptimizerConfig(), DeviceConfig(), device)


@pytest.mark.parametrize(
    ("table", "regularizer", "device_type", "fused"),
    [
        (TableOptimizer.ROWWISE_ADAGRAD, 0.0, "cpu", True),
        (TableOptimizer.ADAM, 0.0, "cpu", False),
        (TableOptimizer.ADAM, 0.0, "cuda", True),
        (TableOptimizer.ADAM, 0.1, "cuda", False),
    ],
)
def test_regularised_tables_keep_their_gradients(
    table: TableOptimizer, regularizer: float, device_type: str, fused: bool
) -> None:
    config = OptimizerConfig(table=table, table_regularizer=regularizer)
    assert is_fused(config, torch.device(device_type)) is fused


def test_regularised_tables_behind_a_cache_are_refused() -> None:
    behind_cache = DeviceConfig(device="cuda", table_memory=TableMemory.UVM_CACHING)
    with pytest.raises(ConfigError, match="reads whole tables every step"):
        check_layout(behind_cache, torch.device("cuda"), fused=False)


@pytest.mark.parametrize("ranks_here", [None, 2])
def test_planner_knows_this_machine(
    ranks_here: int | None, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ranks_here is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks_here))
    found = topology(device)
    assert found.local_world_size == (ranks_here or 1)
    host_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found.devices[0].storage.ddr == host_bytes // (ranks_here or 1)
