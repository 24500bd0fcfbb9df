"""What every embedding method must do: a new yaml in `conf/embedding` is tested by being there."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from recsys.core.jsonable import build_config
from recsys.core.modules import Combiner
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec, Pooling
from recsys.embeddings.collection import (
    PlannedEmbeddingBagCollection,
    PlannedEmbeddingCollection,
    parts_in,
)
from recsys.embeddings.method import MethodConfig
from tests.embeddings import dense_reference as reference

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "embedding"
METHODS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SIZES = {"user": 300, "type": 40, "tags": 90, "one": 1}
FEATURES = (
    FeatureSpec(name="user", embedding_dim=10, num_embeddings=300, max_length=1, octave_counts=(9, 5, 3)),
    FeatureSpec(name="type", embedding_dim=10, num_embeddings=40, max_length=1),
    FeatureSpec(name="tags", embedding_dim=10, num_embeddings=90, max_length=4, pooling=Pooling.MEAN),
    FeatureSpec(name="one", embedding_dim=10, num_embeddings=1),
    FeatureSpec(name="user__linear", embedding_dim=1, num_embeddings=300, source="user", max_length=1),
    FeatureSpec(name="tags__linear", embedding_dim=1, num_embeddings=90, source="tags", max_length=4),
)


def load(method: str) -> MethodConfig:
    path = FOLDER / f"{method}.yaml"
    data = OmegaConf.load(path)
    if OmegaConf.missing_keys(data):
        pytest.skip(f"{path.name} leaves {sorted(OmegaConf.missing_keys(data))} to the user")
    values = OmegaConf.to_container(data, resolve=True)
    return build_config(MethodConfig, values, key="embedding")  # type: ignore[type-abstract]


def plan_of(method: str) -> TablePlan:
    return load(method).plan(FEATURES)


def batch() -> reference.Bags:
    single = reference.random_bags({"user": 300, "type": 40}, 12, seed=0, max_length=1)
    return single | reference.random_bags({"tags": 90, "one": 1}, 12, seed=1, max_length=4)


def test_there_are_methods() -> None:
    assert {"full", "hash", "quotient_remainder", "unified", "mixed"} <= set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_config_names_itself(method: str) -> None:
    config = load(method)
    target = f"{type(config).__module__}.{type(config).__qualname__}"
    assert OmegaConf.select(OmegaConf.load(FOLDER / f"{method}.yaml"), "_target_") == target


@pytest.mark.parametrize("method", METHODS)
def test_plan_covers_the_features_in_order_and_counts_its_bytes(method: str) -> None:
    plan = plan_of(method)
    assert [entry.feature.name for entry in plan.features] == [feature.name for feature in FEATURES]
    assert plan.num_bytes <= sum((f.num_embeddings or 0) * f.embedding_dim * 4 for f in FEATURES)
    assert plan.table_bytes == sum(table.num_bytes for table in plan.tables)
    assert plan_of(method).fingerprint == plan.fingerprint


@pytest.mark.parametrize("method", METHODS)
def test_forward_and_backward(method: str) -> None:
    torch.manual_seed(0)
    plan = plan_of(method)
    collection = PlannedEmbeddingBagCollection(plan)
    out = collection(reference.jagged(batch()))
    assert out.keys() == [feature.name for feature in FEATURES]
    assert out.values().shape == (12, sum(out.length_per_key())) and out.values().dtype == torch.float32
    out.values().sum().backward()
    for name, weight in reference.table_parameters(collection).items():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name
    assert not out["tags"][0].any(), "an empty bag embeds to zero"


@pytest.mark.parametrize("method", METHODS)
def test_plan_rebuilt_from_json_computes_the_same(method: str) -> None:
    plan = plan_of(method)
    again = TablePlan.from_json(plan.to_json())
    assert again == plan
    first, second = PlannedEmbeddingBagCollection(plan), PlannedEmbeddingBagCollection(again)
    second.load_state_dict(first.state_dict())
    values = [collection(reference.jagged(batch())).values() for collection in (first, second)]
    assert torch.equal(*values)


@pytest.mark.parametrize("method", METHODS)
def test_pooled_is_the_sum_of_unpooled(method: str) -> None:
    plan = plan_of(method)
    pooled, unpooled = PlannedEmbeddingBagCollection(plan), PlannedEmbeddingCollection(plan)
    reference.randomise(pooled, seed=2)
    weights = reference.table_parameters(pooled)
    with torch.no_grad():
        for name, weight in reference.table_parameters(unpooled).items():
            weight.copy_(weights[name])
    out, each = pooled(reference.jagged(batch())).to_dict(), unpooled(reference.jagged(batch()))
    for feature in FEATURES:
        bags = each[feature.name].to_dense()
        total = torch.stack([bag.sum(0) for bag in bags])
        if feature.pooling is Pooling.MEAN:
            total = total / torch.tensor([max(len(bag), 1) for bag in bags]).unsqueeze(1)
        torch.testing.assert_close(out[feature.name], total)


@pytest.mark.parametrize("method", METHODS)
def test_scripted_remap_and_combiner_equal_eager(method: str) -> None:
    plan = plan_of(method)
    parts = parts_in(PlannedEmbeddingBagCollection(plan))
    assert set(parts) == {feature.name for feature in FEATURES}
    for entry in plan.features:
        remap, combiner = parts[entry.feature.name]
        for ids in (torch.arange(entry.feature.num_embeddings or 0), torch.empty(0, dtype=torch.int64)):
            rows = remap(ids)
            assert torch.equal(torch.jit.script(remap)(ids), rows)
            assert rows.dtype == torch.int64 and rows.shape == (len(entry.tables), len(ids))
            looked_up = [torch.randn(len(ids), plan.table(name).embedding_dim) for name in entry.tables]
            combined = combiner(ids, looked_up)
            assert combined.shape == (len(ids), entry.feature.embedding_dim)
            assert torch.equal(torch.jit.script(combiner)(ids, looked_up), combined)


@pytest.mark.parametrize("method", METHODS)
def test_rows_lie_in_their_tables(method: str) -> None:
    plan = plan_of(method)
    for entry in plan.features:
        for name, rows in zip(
            entry.tables, entry.remap.build()(torch.arange(entry.feature.num_embeddings or 0)), strict=True
        ):
            assert int(rows.min()) >= 0 and int(rows.max()) < plan.table(name).num_embeddings


@pytest.mark.parametrize("method", METHODS)
def test_linear_combiners_commute_with_pooling(method: str) -> None:
    for entry in plan_of(method).features:
        combiner = entry.combiner.build()
        assert isinstance(combiner, Combiner)
        if combiner.linear:
            plan = plan_of(method)
            ids = torch.zeros(5, dtype=torch.int64)
            rows = [torch.randn(5, plan.table(name).embedding_dim) for name in entry.tables]
            after = combiner(ids[:1], [row.sum(0, keepdim=True) for row in rows])
            torch.testing.assert_close(combiner(ids, rows).sum(0, keepdim=True), after)


@pytest.mark.parametrize("method", METHODS)
def test_unknown_key_is_refused_with_its_name(method: str) -> None:
    values = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{method}.yaml"))
    assert isinstance(values, dict)
    with pytest.raises(
        ValueError, match=r"embedding\.compresion_ratio=2: no such key\. Did you mean 'compression_ratio'"
    ):
        build_config(MethodConfig, values | {"compresion_ratio": 2}, key="embedding")  # type: ignore[type-abstract]
