"""Columns whose values have weights: every method sums embeddings by them, and so does its export."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.errors import ConfigError, DataError
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec, Init, Pooling, Read
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.frozen import build_frozen
from recsys.embeddings.full import FullConfig
from recsys.export.script import script_model
from recsys.export.serving import ServingEmbeddings
from recsys.models.din import DINConfig
from tests.contract.methods import METHODS, collection_of, compressed, plan_of, trained_parts
from tests.embeddings import dense_reference as reference

BASKET = Read(name="basket", source="bought", pooling=Pooling.WEIGHTED, max_length=4)
ITEM = FeatureSpec(
    name="item", embedding_dim=8, num_embeddings=200, max_length=1, octave_counts=(9, 8, 7, 6), also=(BASKET,)
)
TAGS = FeatureSpec(name="tags", embedding_dim=8, num_embeddings=60, pooling=Pooling.WEIGHTED, max_length=3)
FEATURES = (TAGS, ITEM, replace(TAGS.renamed("__linear"), embedding_dim=1))
BAGS = {
    "item": [[0], [7], [199], [3]],
    "bought": [[1, 150, 3, 9], [], [2, 2], [4]],
    "tags": [[], [5, 59, 5], [1], [0, 2]],
}
WEIGHTS = {"bought": [0.5, -1.0, 0.0, 2.0, 0.25, 0.75, 1.0], "tags": [1.0, 0.1, 3.0, -2.0, 0.0, 0.5]}


def weights() -> list[Tensor]:
    """By column, 1 where it has none."""
    counts = {name: sum(map(len, rows)) for name, rows in BAGS.items()}
    return [torch.tensor(WEIGHTS.get(name, [1.0] * count)) for name, count in counts.items()]


def batch() -> KeyedJaggedTensor:
    plain = reference.jagged(BAGS)
    return KeyedJaggedTensor(plain.keys(), plain.values(), weights=torch.cat(weights()), lengths=plain.lengths())


def single_ids() -> KeyedJaggedTensor:
    """A row for each id of `BAGS`."""
    ids = {name: [[i] for row in rows for i in row] for name, rows in BAGS.items()}
    longest = max(map(len, ids.values()))
    return reference.jagged({name: [*rows, *([[]] * (longest - len(rows)))] for name, rows in ids.items()})


def unweighted(feature: FeatureSpec) -> FeatureSpec:
    also = tuple(replace(read, pooling=Pooling.SUM) for read in feature.also)
    return replace(feature, pooling=Pooling.SUM, also=also)


@pytest.mark.parametrize("method", METHODS)
def test_sums_are_by_weight(method: str) -> None:
    plan = plan_of(method, FEATURES)
    plain = TablePlan(plan.tables, tuple(replace(e, feature=unweighted(e.feature)) for e in plan.features))
    with torch.no_grad():
        found = collection_of(plan)(batch()).to_dict()
        source = collection_of(plan)
        alone = PlannedEmbeddingBagCollection(plain).eval()
        values = reference.table_parameters(source)
        for name, weight in reference.table_parameters(alone).items():
            weight.copy_(values[name])
        of_plan, of_plain = reference.parts_of(source), reference.parts_of(alone)
        for name, modules in of_plain.items():
            for module, known in zip(modules, of_plan[name], strict=True):
                module.load_state_dict(known.state_dict())
        by_id = alone(single_ids()).to_dict()
    assert list(found) == ["tags", "item", "basket", "tags__linear"]
    for name, source_column in (("basket", "bought"), ("tags", "tags"), ("tags__linear", "tags")):
        at, own = 0, torch.tensor(WEIGHTS[source_column])
        for row, ids in enumerate(BAGS[source_column]):
            expected = (by_id[name][at : at + len(ids)] * own[at : at + len(ids)].unsqueeze(1)).sum(0)
            torch.testing.assert_close(found[name][row], expected, rtol=1e-5, atol=1e-6)
            at += len(ids)


@pytest.mark.parametrize("method", METHODS)
def test_the_exported_ones_are_the_eager_ones(method: str) -> None:
    parts = compressed(method, FEATURES).freeze(trained_parts(plan_of(method, FEATURES)))
    scripted = script_model(ServingEmbeddings(parts, list(BAGS)))
    ids = [torch.tensor([i for row in rows for i in row], dtype=torch.int64) for rows in BAGS.values()]
    offsets = [torch.tensor([0, *map(len, rows)]).cumsum(0) for rows in BAGS.values()]
    with torch.no_grad():
        pooled = scripted(ids, offsets, weights())[0]
        want = build_frozen(parts)(batch()).values()
    torch.testing.assert_close(torch.cat(pooled, dim=1), want, rtol=1e-5, atol=1e-5)


def test_full_tables_are_torch_embedding_bags_with_per_sample_weights() -> None:
    """Values, and gradients of tables and weights alike."""
    collection = collection_of(FullConfig(init=Init(scale=1.0)).plan([TAGS]))
    assert collection.is_weighted()
    table = next(iter(reference.table_parameters(collection).values()))
    plain = table.detach().clone().requires_grad_()
    ids = torch.tensor([i for row in BAGS["tags"] for i in row])
    offsets = torch.tensor([0, *map(len, BAGS["tags"])]).cumsum(0)[:-1]
    own = torch.tensor(WEIGHTS["tags"])
    want = torch.nn.functional.embedding_bag(ids, plain, offsets, mode="sum", per_sample_weights=own)
    found = collection(batch()).values()
    torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-6)
    for result in (found, want):
        result.square().sum().backward()
    torch.testing.assert_close(table.grad, plain.grad, rtol=1e-5, atol=1e-6)


def test_missing_weights_are_refused() -> None:
    collection = collection_of(FullConfig().plan([TAGS]))
    with pytest.raises(DataError, match="no weights, by which feature 'tags' pools the ids of column 'tags'"):
        collection(reference.jagged(BAGS))


def test_a_model_that_reads_a_history_refuses_weights() -> None:
    with pytest.raises(ConfigError, match=r"column 'bought' has weights.*step by step"):
        DINConfig().features([ITEM])
