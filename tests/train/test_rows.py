"""Rows of sharded tables: read and replaced wherever they lie, with or without the optimizer's memory of them."""

from collections.abc import Iterator

import pytest
import torch

from recsys.core.specs import FeatureSpec
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.full import FullConfig
from recsys.train.config import DeviceConfig, OptimizerConfig, TableOptimizer
from recsys.train.session import Session, process_group, shard
from recsys.train.tables import initialize_tables
from tests.embeddings import dense_reference as reference

OPTIMIZERS = [TableOptimizer.ROWWISE_ADAGRAD, TableOptimizer.ADAGRAD, TableOptimizer.SGD, TableOptimizer.ADAM]
BAGS = {"a": [[0], [3], [4], [3]]}


@pytest.fixture(params=OPTIMIZERS, ids=lambda optimizer: optimizer.value)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """One table of 5 rows, 6 wide (stored 8 wide), after a step."""
    with process_group(DeviceConfig()) as device:
        plan = FullConfig().plan([FeatureSpec(name="a", embedding_dim=6, num_embeddings=5, max_length=1)])
        model = PlannedEmbeddingBagCollection(plan, torch.device("meta"))
        made = shard(model, OptimizerConfig(table=request.param, table_learning_rate=0.1), DeviceConfig(), device)
        initialize_tables(made.model.state_dict(), plan, seed=1)
        step(made)
        yield made


def step(session: Session) -> None:
    session.optimizer.zero_grad()
    session.model(reference.jagged(BAGS)).values().sum().backward()
    session.optimizer.step()


def test_rows_are_read_in_the_order_asked_for(session: Session) -> None:
    everything = session.read_rows("table_a", torch.arange(5))
    assert everything.shape == (5, 6)
    assert torch.equal(session.read_rows("table_a", torch.tensor([4, 0, 4])), everything[[4, 0, 4]])


def test_written_rows_are_looked_up_and_the_others_stay(session: Session) -> None:
    before = session.read_rows("table_a", torch.arange(5))
    session.write_rows("table_a", torch.tensor([3, 1]), torch.arange(12.0).reshape(2, 6))
    out = session.model(reference.jagged({"a": [[3], [1], [0]]})).values()
    assert torch.equal(out[:2], torch.arange(12.0).reshape(2, 6))
    assert torch.equal(out[2], before[0])


def test_rows_are_found_once_and_follow_the_weights(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call once built the state of the whole model: 1.0 ms to read and 1.7 ms to write rows of 27 tables."""
    session.read_rows("table_a", torch.arange(5))
    state_dict = session.model.state_dict
    monkeypatch.setattr(session.model, "state_dict", None)
    for _ in range(3):
        step(session)
        session.write_rows("table_a", torch.tensor([4]), torch.ones(1, 6))
        with torch.no_grad():
            ((_, weight),) = [(key, w) for key, w in state_dict().items() if key.endswith("table_a.weight")]
            part = weight.local_shards()[0].tensor if hasattr(weight, "local_shards") else weight
            part[0] += 1  # as a checkpoint loads: in place
        read = session.read_rows("table_a", torch.arange(5))
        assert torch.equal(read, part[:, :6]) and (read[4] == 1).all()
        for row in range(5):
            assert torch.equal(session.model(reference.jagged({"a": [[row]]})).values()[0], read[row])


def test_forgotten_rows_step_as_if_they_were_new(session: Session, request: pytest.FixtureRequest) -> None:
    rows = torch.tensor([3, 4])
    same = session.read_rows("table_a", rows)
    session.write_rows("table_a", rows[:1], same[:1])
    session.write_rows("table_a", rows[1:], same[1:], forget=False)
    step(session)
    moved = (session.read_rows("table_a", rows) - same).abs().amax(1)
    adagrad = request.node.callspec.params["session"] in (TableOptimizer.ROWWISE_ADAGRAD, TableOptimizer.ADAGRAD)
    if adagrad:
        # row 3 is in the batch twice, so its gradient is 2; both steps are lr g / sqrt(sum of squares so far)
        assert moved.tolist() == pytest.approx([0.1, 0.1 / 2**0.5], rel=1e-4)
