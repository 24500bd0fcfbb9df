"""The penalty's gradient is lambda e / n of each id of the batch, once, under any method; other ids keep their rows."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.batch import Batch
from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.core.specs import Distribution, FeatureSpec, Init, Pooling, Read
from recsys.embeddings.batch_regularizer import BatchRegularizer, inverse_counts
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.dhe import DHEConfig
from recsys.embeddings.full import FullConfig
from recsys.embeddings.method import MethodConfig
from recsys.embeddings.quotient_remainder import QuotientRemainderConfig
from recsys.embeddings.unified import UnifiedConfig
from recsys.models.ctr import SequenceModel
from recsys.train.config import DeviceConfig, OptimizerConfig, TableOptimizer
from recsys.train.session import Session, process_group, shard
from recsys.train.tables import initialize_tables, local_parts

INIT = Init(distribution=Distribution.NORMAL, scale=1.0)
STRENGTH, RATE = 3.0, 0.5
HISTORY = Read(name="hist_item", source="hist_item", pooling=Pooling.NONE)
FEATURES = [
    FeatureSpec(name="user", embedding_dim=4, num_embeddings=6, max_length=1, octave_counts=(8, 8, 2)),
    FeatureSpec(
        name="item", embedding_dim=4, num_embeddings=12, max_length=1, octave_counts=(50, 40, 8, 4), also=(HISTORY,)
    ),
    FeatureSpec(name="tags", embedding_dim=4, num_embeddings=5, pooling=Pooling.MEAN, octave_counts=(9, 9, 9)),
]
# Look-ups of each id by hand: an octave's over its ids. User 5 alone of its octave's two ids is within the vocabulary.
TIMES = {
    "user": {1: 8.0, 2: 4.0, 3: 4.0, 4: 1.0, 5: 1.0},
    "item": {1: 50.0, 2: 20.0, 3: 20.0, **dict.fromkeys(range(4, 8), 2.0), **dict.fromkeys(range(8, 12), 1.0)},
    "tags": {1: 9.0, 4: 9.0},
}
ROWS = [(3, 9, [2, 2, 9], [1, 4]), (5, 1, [], []), (3, 0, [4, 0], [4])]  # user, item, history, tags
Rows = list[tuple[int, int, list[int], list[int]]]


def batch_of(rows: Rows) -> Batch:
    users, items, histories, tags = zip(*rows, strict=True)
    columns = [[[user] for user in users], [[item] for item in items], histories, tags]
    sparse = KeyedJaggedTensor(
        ["user", "item", "hist_item", "tags"],
        torch.tensor([i for column in columns for row in column for i in row]),
        lengths=torch.tensor([len(row) for column in columns for row in column]),
    )
    return Batch(torch.zeros(len(rows), 0), sparse, torch.zeros(len(rows)))


class Head(nn.Module):
    """Reads nothing, so that all gradients are the penalty's."""

    def forward(self, dense: Tensor, embeddings: Tensor, sequences: list[Tensor], lengths: list[Tensor]) -> Tensor:
        return 0 * embeddings.sum(1) + sum(0 * sequence.sum((1, 2)) for sequence in sequences)


def weights_of(session: Session) -> dict[str, Tensor]:
    """The state dict with plain tensors, which share memory with the parameters."""
    return {key: local_parts(value)[0][0] for key, value in session.model.state_dict().items()}


@pytest.fixture
def device() -> Iterator[torch.device]:
    with process_group(DeviceConfig()) as found:
        yield found


def penalised(plan: TablePlan, device: torch.device, batch: Batch) -> tuple[Session, dict[str, Tensor], float]:
    """A session after one step of fused SGD on the penalty alone, its weights before, and the penalty."""
    torch.manual_seed(0)
    model = SequenceModel(PlannedEmbeddingBagCollection(plan, torch.device("meta")), Head())
    config = OptimizerConfig(table=TableOptimizer.SGD, table_learning_rate=RATE)
    session = shard(model, config, DeviceConfig(), device)
    initialize_tables(session.model.state_dict(), plan, seed=1)
    before = {key: value.clone() for key, value in weights_of(session).items()}
    callback = BatchRegularizer(STRENGTH, plan)
    callback.on_train_start(session)
    callback.on_step_start(session, 1, batch)
    logits = session.model(batch.dense, batch.sparse)
    penalty = callback.penalty(session, len(ROWS))
    assert penalty is not None and callback.penalty(session, len(ROWS)) is None  # of that forward pass, once
    (penalty + logits.sum()).backward()
    return session, before, float(penalty.detach())


def by_hand(plan: TablePlan, state: dict[str, Tensor]) -> tuple[PlannedEmbeddingBagCollection, Tensor]:
    """The penalty over each distinct id, from embeddings looked up one by one in unsharded tables."""
    twin = PlannedEmbeddingBagCollection(plan)
    twin.load_state_dict({key.removeprefix("embeddings."): value for key, value in state.items()})
    assert twin.unpooled is not None
    distinct = {
        "user": {user for user, *_ in ROWS},
        "item": {event for _, item, history, _ in ROWS for event in (item, *history)} - {0},
    }
    if "tags" in [entry.feature.name for entry in twin.unpooled.plan.features]:  # they share a table with a history
        distinct["tags"] = {tag for *_, tags in ROWS for tag in tags}
    total = torch.zeros(())
    for name, ids in distinct.items():
        for i in ids:
            tags = [i] if name == "tags" else []
            alone = batch_of([(i if name == "user" else 0, i if name == "item" else 0, [], tags)])
            vector = twin(alone.sparse)[name]
            total = total + STRENGTH / 2 * vector.square().sum() / TIMES[name][i]
    return twin, total


@pytest.mark.parametrize(
    "method",
    [
        FullConfig(init=INIT),
        QuotientRemainderConfig(compression_ratio=1.2, init=INIT),
        UnifiedConfig(compression_ratio=1.5, init=INIT),
        DHEConfig(compression_ratio=1.0, init=INIT),
    ],
    ids=lambda method: type(method).__name__,
)
@pytest.mark.parametrize("padding", [0, 2])
def test_gradients_are_those_of_each_id_once(method: MethodConfig, padding: int, device: torch.device) -> None:
    plan = method.plan(FEATURES)
    session, before, penalty = penalised(plan, device, batch_of(ROWS).padded(len(ROWS) + padding))
    twin, expected = by_hand(plan, before)
    assert penalty == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    gradients = {f"embeddings.{name}": p.grad for name, p in twin.named_parameters()}
    networks = {name.removeprefix("module."): p.grad for name, p in session.model.named_parameters()}
    for key, after in weights_of(session).items():
        gradient = gradients.get(key)
        gradient = torch.zeros_like(after) if gradient is None else gradient
        if torch.equal(after, before[key]) and networks.get(key) is not None:  # not fused: no optimizer has stepped
            torch.testing.assert_close(networks[key], gradient)
        else:
            torch.testing.assert_close(after, before[key] - RATE * gradient)


def test_a_row_shrinks_by_its_share(device: torch.device) -> None:
    """Equation 7 for full tables, number by number."""
    session, before, _ = penalised(FullConfig(init=INIT).plan(FEATURES), device, batch_of(ROWS))
    for key, after in weights_of(session).items():
        factors = (after[:, :4] / before[key][:, :4]).mean(1).tolist()
        feature = next(name for name in ("user", "item", "tags") if f"table_{name}." in key)
        seen = {"user": {3, 5}, "item": {9, 1, 2, 4}, "tags": set()}[feature]
        for row, factor in enumerate(factors):
            shrunk = 1 - RATE * STRENGTH / TIMES[feature][row] if row in seen else 1.0
            assert factor == pytest.approx(shrunk, abs=1e-5), (feature, row)


def test_shares_by_hand() -> None:
    assert inverse_counts(FEATURES[0]).tolist() == pytest.approx([0, 1 / 8, 1 / 4, 1])
    assert inverse_counts(FEATURES[1]).tolist() == pytest.approx([0, 1 / 50, 1 / 20, 1 / 2, 1])


def test_hashed_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.batch_regularizer: column 'url' has no vocabulary"):
        inverse_counts(FeatureSpec(name="url", embedding_dim=4, num_embeddings=None))
