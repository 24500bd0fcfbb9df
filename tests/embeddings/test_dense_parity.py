"""Every method, pooled and unpooled, one-hot and multi-valued: values and gradients equal the dense reference."""

import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from recsys.core.component import Component
from recsys.core.modules import Combiner
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, Pooling, TableSpec
from recsys.embeddings.collection import PlannedEmbeddingBagCollection, PlannedEmbeddingCollection
from recsys.embeddings.combiners import Only, Product
from recsys.embeddings.full import FullConfig
from recsys.embeddings.hash import HashConfig
from recsys.embeddings.method import Identity, MethodConfig
from recsys.embeddings.mixed import Assignment, MixedConfig
from recsys.embeddings.quotient_remainder import Combine, QuotientRemainderConfig, QuotientRemainderRemap
from recsys.embeddings.unified import UnifiedConfig
from tests.embeddings import dense_reference as reference

SIZES = {"user": 37, "type": 12, "keys": 1, "tags": 20}  # names that a ModuleDict would refuse; a vocabulary of one
MIXED = MixedConfig(
    default=FullConfig(),
    assignments=[
        Assignment(features=["type"], method=QuotientRemainderConfig(compression_ratio=1.7)),
        Assignment(features=["user", "keys"], method=UnifiedConfig(num_lookups=2, compression_ratio=3)),
    ],
)
METHODS: dict[str, MethodConfig] = {
    "full": FullConfig(),
    "hash": HashConfig(compression_ratio=3),
    "quotient_remainder product": QuotientRemainderConfig(compression_ratio=1.6),
    "quotient_remainder sum": QuotientRemainderConfig(compression_ratio=1.6, combine=Combine.SUM),
    "unified": UnifiedConfig(compression_ratio=4),
    "unified, two look-ups": UnifiedConfig(compression_ratio=4, num_lookups=2),
    "unified, look-ups per feature, one alone": UnifiedConfig(num_lookups=2, lookups={"tags": 3}, alone=["type"]),
    "mixed": MIXED,
}
KINDS = {"one-hot": (1, Pooling.SUM), "multi-valued": (4, Pooling.SUM), "multi-valued, mean": (4, Pooling.MEAN)}


def features(kind: str, *, width: int, linear: bool = False) -> list[FeatureSpec]:
    max_length, pooling = KINDS[kind]
    specs = [
        FeatureSpec(name=name, embedding_dim=width, num_embeddings=size, pooling=pooling, max_length=max_length)
        for name, size in SIZES.items()
    ]
    if linear:
        specs += [replace(spec, name=f"{spec.name}__linear", embedding_dim=1) for spec in specs]
    return specs


def check_pooled(plan: TablePlan, bags: reference.Bags) -> None:
    collection = PlannedEmbeddingBagCollection(plan).eval()
    reference.randomise(collection, seed=1)
    tables, states = reference.dense_tables(plan, collection), reference.states_of(collection)
    out, want = collection(reference.jagged(bags)), reference.pooled(plan, tables, bags, states)
    assert out.keys() == [entry.feature.name for entry in plan.features]
    assert out.length_per_key() == [entry.feature.embedding_dim for entry in plan.features]
    torch.testing.assert_close(out.values(), want)
    upstream = torch.randn(want.shape, generator=torch.Generator().manual_seed(2))
    (out.values() * upstream).sum().backward()
    (want * upstream).sum().backward()
    reference.assert_same_gradients(plan, collection, tables)
    reference.assert_same_combiner_gradients(collection, states)


def check_unpooled(plan: TablePlan, bags: reference.Bags) -> None:
    collection = PlannedEmbeddingCollection(plan).eval()
    reference.randomise(collection, seed=1)
    tables, states = reference.dense_tables(plan, collection), reference.states_of(collection)
    out, want = collection(reference.jagged(bags)), reference.unpooled(plan, tables, bags, states)
    assert list(out) == list(want)
    generator = torch.Generator().manual_seed(2)
    loss, want_loss = reference.anchor(reference.table_parameters(collection)), reference.anchor(tables)
    for entry in plan.features:
        name = entry.feature.name
        torch.testing.assert_close(out[name].values(), want[name])
        assert out[name].lengths().tolist() == [len(ids) for ids in bags[entry.feature.source]]
        upstream = torch.randn(want[name].shape, generator=generator)
        loss, want_loss = loss + (out[name].values() * upstream).sum(), want_loss + (want[name] * upstream).sum()
    loss.backward()
    want_loss.backward()
    reference.assert_same_gradients(plan, collection, tables)
    reference.assert_same_combiner_gradients(collection, states)


CHECKS: dict[str, Callable[[TablePlan, reference.Bags], None]] = {"pooled": check_pooled, "unpooled": check_unpooled}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_values_and_gradients_equal_the_dense_reference(method: str, kind: str, check: str) -> None:
    plan = METHODS[method].plan(features(kind, width=6, linear=True))
    CHECKS[check](plan, reference.random_bags(SIZES, 9, seed=0, max_length=KINDS[kind][0]))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("width", [1, 4, 10])
@pytest.mark.parametrize("method", [m for m in METHODS if "look-ups" not in m and m != "mixed"])
def test_padded_widths(method: str, width: int, check: str) -> None:
    plan = METHODS[method].plan(features("multi-valued", width=width))
    CHECKS[check](plan, reference.random_bags(SIZES, 5, seed=3, max_length=4))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", METHODS)
def test_columns_in_another_order_and_columns_nobody_asked_for(method: str, check: str) -> None:
    plan = METHODS[method].plan(features("multi-valued", width=4))
    bags = reference.random_bags({"other": 5, **dict(reversed(SIZES.items()))}, 6, seed=4, max_length=3)
    CHECKS[check](plan, bags)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("empty", [["type"], list(SIZES)])
def test_batch_in_which_all_bags_of_a_feature_are_empty(method: str, kind: str, check: str, empty: list[str]) -> None:
    plan = METHODS[method].plan(features(kind, width=4))
    bags = reference.random_bags(SIZES, 3, seed=5, max_length=KINDS[kind][0])
    CHECKS[check](plan, bags | {name: [[], [], []] for name in empty})


@pytest.mark.parametrize("method", METHODS)
def test_empty_bag_of_a_single_valued_feature_embeds_to_zero(method: str) -> None:
    plan = METHODS[method].plan(features("one-hot", width=4))
    check_pooled(plan, {name: [[], [size - 1], [], [0]] for name, size in SIZES.items()})


def test_several_ids_in_a_row_planned_as_single_valued_are_refused_where_pooling_would_be_wrong() -> None:
    plan = METHODS["quotient_remainder product"].plan(features("one-hot", width=4))
    collection = PlannedEmbeddingBagCollection(plan)
    with pytest.raises(RuntimeError, match="single-valued"):
        collection(reference.jagged({name: [[0, 0], [0]] for name in SIZES}))


EXTREMES = [2**63 - 1, 2**63 - 2, -(2**63), -1, 0, 2**62 + 1, 2**53 + 1]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("config", [HashConfig(), UnifiedConfig(num_lookups=2), HashConfig(full_below=100)])
def test_any_int64_is_an_id_of_a_hashed_feature(config: MethodConfig, check: str) -> None:
    spec = FeatureSpec(name="ip", embedding_dim=4, num_embeddings=None, octave_counts=(1, 2, 4))
    plan = config.plan([spec])
    CHECKS[check](plan, {"ip": [EXTREMES, [], [EXTREMES[0]]]})


def test_linear_features_that_share_a_table_with_per_id_ones_follow_them() -> None:
    """q * r combines per id, so whoever reads q or r alone is looked up per id too; s stays pooled."""
    spec = FeatureSpec(name="a", embedding_dim=4, num_embeddings=12, source="x")
    tables = tuple(TableSpec(name=name, num_embeddings=12, embedding_dim=4) for name in "qrs")
    remap = Component.of(QuotientRemainderRemap, num_remainders=4)
    single = (Component.of(Identity), Component.of(Only))
    entries = (
        FeaturePlan(feature=replace(spec, name="s"), tables=("s",), remap=single[0], combiner=single[1]),
        FeaturePlan(feature=spec, tables=("q", "r"), remap=remap, combiner=Component.of(Product)),
        FeaturePlan(feature=replace(spec, name="b"), tables=("q",), remap=single[0], combiner=single[1]),
        FeaturePlan(
            feature=replace(spec, name="c", pooling=Pooling.MEAN, source="y"),
            tables=("r",),
            remap=single[0],
            combiner=single[1],
        ),
    )
    plan = TablePlan(tables=tables, features=entries)
    collection = PlannedEmbeddingBagCollection(plan)
    assert collection.unpooled is not None
    assert [e.feature.name for e in collection.unpooled.plan.features] == ["a", "b", "c"]
    assert [e.feature.name for e in collection.lookups.entries] == ["s"]
    check_pooled(plan, reference.random_bags({"x": 12, "y": 12}, 9, seed=6, max_length=4))


class PlusOne(Combiner):
    """Maps zeros to something else."""

    linear: bool = False

    def forward(self, ids: torch.Tensor, rows: list[torch.Tensor]) -> torch.Tensor:
        return rows[0] + 1


@pytest.mark.parametrize("max_length", [1, None])
def test_empty_bag_embeds_to_zero_even_if_the_combiner_maps_zeros_elsewhere(
    monkeypatch: pytest.MonkeyPatch, max_length: int | None
) -> None:
    module = ModuleType("recsys.sample_of_tests")
    module.PlusOne = PlusOne  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    spec = FeatureSpec(name="a", embedding_dim=4, num_embeddings=3, max_length=max_length)
    (entry,) = FullConfig().plan([spec]).features
    entry = replace(entry, combiner=Component(f"{module.__name__}.PlusOne"))
    collection = PlannedEmbeddingBagCollection(
        TablePlan(tables=(TableSpec(name="table_a", num_embeddings=3, embedding_dim=4),), features=(entry,))
    )
    out = collection(reference.jagged({"a": [[], [2], []]})).values()
    weight = reference.table_parameters(collection)["table_a"]
    torch.testing.assert_close(out, torch.stack([torch.zeros(4), weight[2] + 1, torch.zeros(4)]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [8, 10])
def test_full_equals_embedding_bag_of_torch(kind: str, width: int) -> None:
    plan = FullConfig().plan(features(kind, width=width))
    collection = PlannedEmbeddingBagCollection(plan)
    reference.randomise(collection, seed=0)
    bags = reference.random_bags(SIZES, 64, seed=7, max_length=KINDS[kind][0])
    out = collection(reference.jagged(bags)).to_dict()
    for name in SIZES:
        want = torch.nn.functional.embedding_bag(
            torch.tensor([i for ids in bags[name] for i in ids]),
            reference.table_parameters(collection)[f"table_{name}"][:, :width],
            torch.tensor([0, *(len(ids) for ids in bags[name])]).cumsum(0),
            mode=KINDS[kind][1].value,
            include_last_offset=True,
        )
        torch.testing.assert_close(out[name], want)


@pytest.mark.parametrize("kind", KINDS)
def test_full_equals_the_collection_of_torchrec(kind: str) -> None:
    plan = FullConfig().plan(features(kind, width=8))
    planned = PlannedEmbeddingBagCollection(plan)
    plain = EmbeddingBagCollection(tables=_plain_configs(plan))
    plain.load_state_dict({f"embedding_bags.{n}.weight": w for n, w in reference.table_parameters(planned).items()})
    batch = reference.jagged(reference.random_bags(SIZES, 64, seed=8, max_length=KINDS[kind][0]))
    torch.testing.assert_close(planned(batch).values(), plain(batch).values())


def _plain_configs(plan: TablePlan) -> list[EmbeddingBagConfig]:
    return [
        EmbeddingBagConfig(
            name=f"table_{entry.feature.name}",
            num_embeddings=entry.feature.num_embeddings or 0,
            embedding_dim=entry.feature.embedding_dim,
            feature_names=[entry.feature.name],
            pooling=PoolingType.MEAN if entry.feature.pooling is Pooling.MEAN else PoolingType.SUM,
        )
        for entry in plan.features
    ]
