"""What every embedding method must do: a new yaml in `conf/embedding` is tested by being there."""

import re
from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf

from recsys.core.errors import DataError
from recsys.core.jsonable import build_config
from recsys.core.modules import Combiner
from recsys.core.parts import EmbeddingParts
from recsys.core.plan import TablePlan, component_bytes
from recsys.core.specs import FeatureSpec, Pooling, RowType
from recsys.embeddings.collection import PlannedEmbeddingBagCollection, PlannedEmbeddingCollection, parts_in
from recsys.embeddings.frozen import build_frozen
from recsys.embeddings.method import WITHOUT_VOCABULARY, MethodConfig
from recsys.export.narrow import check_table, narrow
from recsys.export.script import script_model
from recsys.export.serving import ServingEmbeddings
from tests.contract.methods import (
    FEATURES,
    FOLDER,
    METHODS,
    batch,
    collection_of,
    compressed,
    load,
    plan_of,
    planned,
    trained_parts,
)
from tests.embeddings import dense_reference as reference


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
    served = compressed(method).serving_plan(plan)
    assert served.num_bytes <= sum((f.num_embeddings or 0) * f.embedding_dim * 4 for f in FEATURES)
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
    pooled, unpooled = PlannedEmbeddingBagCollection(plan).eval(), PlannedEmbeddingCollection(plan).eval()
    reference.randomise(pooled, seed=2)
    weights = reference.table_parameters(pooled)
    with torch.no_grad():
        for name, weight in reference.table_parameters(unpooled).items():
            weight.copy_(weights[name])
    for name, modules in parts_in(pooled).items():
        for module, same in zip(modules, parts_in(unpooled)[name], strict=True):
            same.load_state_dict(module.state_dict())
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


@pytest.mark.parametrize("kind", ["pooled", "unpooled"])
@pytest.mark.parametrize("method", METHODS)
def test_values_and_gradients_equal_the_slow_reference(method: str, kind: str) -> None:
    """Ids one by one over plain tensors; what remaps and combiners compute is written twice."""
    plan = plan_of(method)
    torch.manual_seed(3)
    make = PlannedEmbeddingBagCollection if kind == "pooled" else PlannedEmbeddingCollection
    collection = make(plan).eval()
    reference.randomise(collection, seed=1)
    tables, states = reference.dense_tables(plan, collection), reference.states_of(collection)
    got, want = collection(reference.jagged(batch())), getattr(reference, kind)(plan, tables, batch(), states)
    if kind == "pooled":
        pairs = [(got.values(), want)]
    else:
        pairs = [(got[entry.feature.name].values(), want[entry.feature.name]) for entry in plan.features]
    losses = [reference.anchor(reference.table_parameters(collection)), reference.anchor(tables)]
    generator = torch.Generator().manual_seed(2)
    for actual, expected in pairs:
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
        upstream = torch.randn(expected.shape, generator=generator)
        losses = [losses[0] + (actual * upstream).sum(), losses[1] + (expected * upstream).sum()]
    for loss in losses:
        loss.backward()
    reference.assert_same_gradients(plan, collection, tables)
    reference.assert_same_combiner_gradients(collection, states)


@pytest.mark.parametrize("ratio", [1.5, 3, 10, 100, 1000])
@pytest.mark.parametrize("method", METHODS)
def test_budget_is_kept_or_refused_with_one_that_will_do(method: str, ratio: float) -> None:
    config = replace(load(method), compression_ratio=ratio)
    plan, refusal = planned(config, FEATURES)
    if plan is not None:
        assert config.serving_plan(plan).num_bytes <= config.budget_bytes(FEATURES)
        return
    told = re.search(r"Raise the budget to ([\d.]+) MiB", refusal)
    assert told, refusal
    enough = replace(config, compression_ratio=None, budget_mib=float(told[1]))
    assert enough.serving_plan(enough.plan(FEATURES)).num_bytes <= float(told[1]) * 2**20


@pytest.mark.parametrize("method", METHODS)
def test_keys_without_vocabulary_are_embedded_or_refused_in_words(method: str) -> None:
    feature = FeatureSpec(name="ip", embedding_dim=8, num_embeddings=None, octave_counts=(3,) * 10, max_length=1)
    extremes = torch.tensor([2**63 - 1, -(2**63), -1, 0, 2**53 + 1])
    plan, refusal = planned(replace(load(method), compression_ratio=None), [feature])
    assert (plan is not None) == (method in WITHOUT_VOCABULARY)
    if plan is None:
        assert "vocabulary" in refusal and set(WITHOUT_VOCABULARY) <= set(re.split(r"[\s,]+", refusal))
        return
    (entry,) = plan.features
    for name, rows in zip(entry.tables, entry.remap.build()(extremes), strict=True):
        assert int(rows.min()) >= 0 and int(rows.max()) < plan.table(name).num_embeddings


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_without_ids_embeds_to_zeros(method: str) -> None:
    collection = collection_of(plan_of(method))
    out = collection(reference.jagged({name: [[], [], []] for name in batch()})).values()
    assert out.shape[0] == 3 and not out.any()
    out.sum().backward()
    with pytest.raises(DataError, match="not 'user', which feature 'user"):
        collection(reference.jagged({name: bags for name, bags in batch().items() if name != "user"}))


@pytest.mark.parametrize("method", METHODS)
def test_vocabulary_of_one_id(method: str) -> None:
    feature = FeatureSpec(name="one", embedding_dim=8, num_embeddings=1, max_length=1)
    collection = PlannedEmbeddingBagCollection(load(method).plan([feature])).eval()
    out = collection(reference.jagged({"one": [[0], [], [0]]})).values()
    assert out.shape == (3, 8) and out.isfinite().all() and not out[1].any()


@pytest.mark.parametrize("method", METHODS)
def test_freezing_gives_what_was_planned(method: str) -> None:
    parts, config = trained_parts(plan_of(method)), compressed(method)
    frozen, again = config.freeze(parts), config.freeze(parts)
    assert frozen.plan == config.serving_plan(parts.plan)
    for table in frozen.plan.tables:
        check_table(table, frozen.tables[table.name])
        assert torch.equal(frozen.tables[table.name], again.tables[table.name])
        assert frozen.tables[table.name].nbytes == table.num_bytes
    for entry in frozen.plan.features:
        for module, component in (
            (frozen.remaps[entry.feature.name], entry.remap),
            (frozen.combiners[entry.feature.name], entry.combiner),
        ):
            assert sum(value.nbytes for value in module.state_dict().values()) == component_bytes(component)
            assert isinstance(module, type(component.build()))


def serve(parts: EmbeddingParts, bags: reference.Bags) -> torch.Tensor:
    """What the scripted embeddings of an exported model make of the bags."""
    sources = list(bags)
    scripted = script_model(ServingEmbeddings(parts, sources))  # refuses operators that stock libtorch lacks
    ids = [torch.tensor([key for bag in bags[name] for key in bag], dtype=torch.int64) for name in sources]
    offsets = [torch.tensor([0, *(len(bag) for bag in bags[name])]).cumsum(0) for name in sources]
    with torch.no_grad():
        return torch.cat(scripted(ids, offsets, [torch.empty(0)] * len(ids))[0], dim=1)


@pytest.mark.parametrize("row_type", [RowType.FLOAT32, RowType.INT8, RowType.INT4])
@pytest.mark.parametrize("method", METHODS)
def test_exported_embeddings_equal_the_eager_ones(method: str, row_type: RowType) -> None:
    """Scripted over packed rows against the collection that evaluation scores, over the same rows unpacked."""
    parts = narrow(compressed(method).freeze(trained_parts(plan_of(method))), row_type)
    with torch.no_grad():
        want = build_frozen(parts)(reference.jagged(batch())).values()
    torch.testing.assert_close(serve(parts, batch()), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_methods_that_freeze_nothing_serve_what_they_trained(method: str) -> None:
    parts, config = trained_parts(plan_of(method)), compressed(method)
    if config.serving_plan(parts.plan) != parts.plan:
        pytest.skip(f"{method} serves something else than it trains")
    assert config.freeze(parts) is parts
    with torch.no_grad():
        want = collection_of(plan_of(method))(reference.jagged(batch())).values()
        torch.testing.assert_close(build_frozen(parts)(reference.jagged(batch())).values(), want, rtol=0, atol=0)
