"""Several columns that read one feature's embeddings, pooled or as sequences: every method does it, and its export."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recsys.core.padding import padded
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec, Pooling, Read
from recsys.embeddings.collection import PlannedEmbeddingCollection
from recsys.embeddings.frozen import build_frozen
from recsys.export.script import script_model
from recsys.export.serving import ServingEmbeddings
from tests.contract.methods import METHODS, collection_of, compressed, plan_of, trained_parts
from tests.embeddings import dense_reference as reference

ALSO = (
    Read(name="history", source="seen", pooling=Pooling.NONE, max_length=5),
    Read(name="basket", source="bought", pooling=Pooling.MEAN, max_length=3),
)
ITEM = FeatureSpec(
    name="item", embedding_dim=8, num_embeddings=200, max_length=1, octave_counts=(9, 8, 7, 6), also=ALSO
)
USER = FeatureSpec(name="user", embedding_dim=8, num_embeddings=60, max_length=1)
FEATURES = (USER, ITEM, ITEM.renamed("__again"))
ROWS = 7


def bags() -> reference.Bags:
    """Rows of every column; the first and the last have no history."""
    single = reference.random_bags({"item": 200, "user": 60}, ROWS, seed=0, max_length=1)
    seen = [[], [3, 3, 199], [0], [7, 1, 2, 3, 4], [198], [5, 6], []]
    bought = [[1], [], [2, 2], [150, 3, 9], [], [4], [0, 1]]
    return single | {"seen": seen, "bought": bought}


def apart(plan: TablePlan, read: Read, feature: str) -> PlannedEmbeddingCollection:
    """The same weights, looked up id by id for one feature that reads one column."""
    entry = next(entry for entry in plan.features if entry.feature.name == feature)
    alone = replace(entry, feature=replace(entry.feature, source=read.source, also=(), max_length=None))
    single = PlannedEmbeddingCollection(TablePlan(plan.of([feature]).tables, (alone,))).eval()
    source = reference.table_parameters(collection_of(plan))
    with torch.no_grad():
        for name, weight in reference.table_parameters(single).items():
            weight.copy_(source[name])
    own = reference.parts_of(collection_of(plan))[feature]
    for module, values in zip(reference.parts_of(single)[feature], own, strict=True):
        module.load_state_dict(values.state_dict())
    return single


@pytest.mark.parametrize("method", METHODS)
def test_each_read_is_what_the_feature_alone_makes_of_its_column(method: str) -> None:
    plan = plan_of(method, FEATURES)
    embedded = collection_of(plan).embed(reference.jagged(bags()))
    pooled = embedded.pooled.to_dict()
    assert list(embedded.sequences) == ["history", "history__again"]
    assert list(pooled) == ["user", "item", "basket", "item__again", "basket__again"]
    for entry in plan.features:
        for read in entry.feature.reads:
            by_id = apart(plan, read, entry.feature.name)(reference.jagged(bags()))[entry.feature.name]
            if read.pooling is Pooling.NONE:
                torch.testing.assert_close(embedded.sequences[read.name].values(), by_id.values())
                assert embedded.sequences[read.name].lengths().tolist() == [len(row) for row in bags()[read.source]]
                continue
            rows = by_id.values().split(by_id.lengths().tolist())
            means = [row.sum(0) / (max(len(row), 1) if read.pooling is Pooling.MEAN else 1) for row in rows]
            torch.testing.assert_close(pooled[read.name], torch.stack(means))


@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_all_reads_add_up(method: str) -> None:
    plan = plan_of(method, FEATURES)
    together = collection_of(plan)
    embedded = together.embed(reference.jagged(bags()))
    (embedded.sequences["history"].values().square().sum() + embedded.pooled["item"].square().sum()).backward()
    expected: dict[str, Tensor] = {}
    for read in ITEM.reads[:2]:
        alone = apart(plan, read, "item")
        alone(reference.jagged(bags()))["item"].values().square().sum().backward()
        for name, weight in reference.table_parameters(alone).items():
            if weight.grad is not None:
                expected[name] = expected.get(name, torch.zeros_like(weight)) + weight.grad
    got = reference.table_parameters(together)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name].grad, gradient)


@pytest.mark.parametrize("method", METHODS)
def test_the_budget_counts_shared_embeddings_once(method: str) -> None:
    config = compressed(method, FEATURES)
    assert config.budget_bytes([ITEM]) == config.budget_bytes([replace(ITEM, also=())])


@pytest.mark.parametrize("method", METHODS)
def test_exported_embeddings_equal_the_eager_ones(method: str) -> None:
    parts = compressed(method, FEATURES).freeze(trained_parts(plan_of(method, FEATURES)))
    sources = list(bags())
    scripted = script_model(ServingEmbeddings(parts, sources))
    ids = [torch.tensor([key for bag in bags()[name] for key in bag], dtype=torch.int64) for name in sources]
    offsets = [torch.tensor([0, *(len(bag) for bag in bags()[name])]).cumsum(0) for name in sources]
    with torch.no_grad():
        pooled, sequences, lengths = scripted(ids, offsets, [torch.empty(0)] * len(ids))
        want = build_frozen(parts).embed(reference.jagged(bags()))
    torch.testing.assert_close(torch.cat(pooled, dim=1), want.pooled.values(), rtol=1e-5, atol=1e-5)
    for got, size, jagged in zip(sequences, lengths, want.sequences.values(), strict=True):
        assert size.tolist() == jagged.lengths().tolist()
        torch.testing.assert_close(got, padded(jagged.values(), jagged.lengths()), rtol=1e-5, atol=1e-5)
