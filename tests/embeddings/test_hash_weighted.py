import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec, Init
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.hash_weighted import HashWeightedConfig, HashWeightedRemap, WeightedSum
from tests.embeddings import dense_reference as reference
from tests.embeddings.met_or_refused import check_budgets
from tests.embeddings.test_dense_parity import CHECKS, KINDS, SIZES, features
from tests.embeddings.uniform import assert_uniform
from tests.ops import splitmix64


def one(size: int, width: int = 16) -> list[FeatureSpec]:
    return [FeatureSpec(name="a", embedding_dim=width, num_embeddings=size)]


def test_formula_worked_out_by_hand() -> None:
    """2 * (1, 10) - 3 * (5, 7) = (-13, -1)."""
    rows = [torch.tensor([[2.0, -3.0]]) - 1, torch.tensor([[1.0, 10.0]]), torch.tensor([[5.0, 7.0]])]
    assert WeightedSum()(torch.zeros(1), rows).tolist() == [[-13.0, -1.0]]


def test_rows_are_the_id_then_its_hashes() -> None:
    plan = HashWeightedConfig(num_components=3, seed=4, compression_ratio=4).plan(one(1000))
    (entry,) = plan.features
    assert entry.tables == ("table_a_weights", *("table_components_a",) * 3)
    rows = entry.remap.build()(torch.tensor([0, 7, 999]))
    number = plan.table("table_components_a").num_embeddings
    for column, key in enumerate((0, 7, 999)):
        hashed = [splitmix64.row(key, splitmix64.salt("a", k, 4), number) for k in range(3)]
        assert rows[:, column].tolist() == [key, *hashed]


def test_starts_as_a_sum_of_components_at_the_scale_of_init() -> None:
    torch.manual_seed(0)
    plan = HashWeightedConfig(num_components=4, compression_ratio=3, init=Init(scale=0.02)).plan(one(5000, 64))
    collection = PlannedEmbeddingBagCollection(plan)
    weights = reference.table_parameters(collection)
    assert weights["table_a_weights"].shape == (5000, 4) and not weights["table_a_weights"].any()
    out = collection(reference.jagged({"a": [[i] for i in range(500)]})).values()
    rows = plan.features[0].remap.build()(torch.arange(500))[1:]
    torch.testing.assert_close(out, weights["table_components_a"][rows].sum(0))
    assert out.std().item() == pytest.approx(0.02, rel=0.05)
    out.sum().backward()
    gradient = weights["table_a_weights"].grad
    assert gradient is not None and gradient[:500].all() and not gradient[500:].any()


def test_bytes_are_split_between_weights_and_components() -> None:
    """1000 ids of 16 floats in a quarter are 4000 floats: 2000 weights, and 125 rows of 16."""
    plan = HashWeightedConfig(compression_ratio=4).plan(one(1000))
    assert {t.name: (t.num_embeddings, t.embedding_dim) for t in plan.tables} == {
        "table_components_a": (125, 16),
        "table_a_weights": (1000, 2),
    }
    assert plan.num_bytes == 16_000


@pytest.mark.parametrize("num_components", [1, 2, 3])
def test_budgets_are_met_or_the_floor_is_told(num_components: int) -> None:
    check_budgets(lambda ratio: HashWeightedConfig(num_components=num_components, compression_ratio=ratio))


@pytest.mark.parametrize("ratio", [2, 5])
def test_budgets_are_not_wasted(ratio: int) -> None:
    plan = HashWeightedConfig(compression_ratio=ratio).plan(one(10**9, 12))
    assert 48 * 10**9 / ratio - 48 < plan.num_bytes <= 48 * 10**9 / ratio


def test_floor_is_the_weights_and_one_component() -> None:
    with pytest.raises(ConfigError, match=f"needs {1000 * 2 * 4 + 64:,} bytes"):
        HashWeightedConfig(compression_ratio=10).plan(one(1000))


def test_no_more_components_than_look_ups() -> None:
    plan = HashWeightedConfig(num_components=1, compression_ratio=1.01).plan(one(10_000, 4))
    assert plan.table("table_components_a").num_embeddings <= 10_000
    assert [t.name for t in HashWeightedConfig().plan(one(1000)).tables] == ["table_a"]
    assert [t.name for t in HashWeightedConfig().plan(one(1)).tables] == ["table_a"]


def test_components_are_reached_alike_by_all_features() -> None:
    plan = HashWeightedConfig(compression_ratio=3).plan(
        [*one(20_000, 8), FeatureSpec(name="b", embedding_dim=8, num_embeddings=20_000)]
    )
    assert len({name for entry in plan.features for name in entry.tables}) == 3
    number = plan.table("table_components_a").num_embeddings
    parts = [entry.remap.build()(torch.arange(20_000)) for entry in plan.features]
    for rows in parts:
        assert torch.equal(rows[0], torch.arange(20_000))
        assert_uniform(rows[1:], number)
    shared = (parts[0][1] == parts[1][1]).sum().item()
    assert shared < 20, "about 20_000 / number equal ids of two features meet by chance"


def test_linear_weights_are_hashed_so_that_the_budget_is_met() -> None:
    linear = FeatureSpec(name="a__linear", embedding_dim=1, num_embeddings=1000, source="a")
    plan = HashWeightedConfig(compression_ratio=4).plan([*one(1000), linear])
    assert plan.num_bytes <= 1000 * 17
    assert plan.features[1].remap.target.endswith(".HashRemap")
    assert HashWeightedConfig().plan([linear]).features[0].remap.target.endswith(".Identity")


@pytest.mark.parametrize("num_components", [16, 17])
def test_as_many_weights_as_values_are_refused(num_components: int) -> None:
    message = rf"num_components={num_components}: .*take as much as full tables of width 16 \(a\). Set .* below 16"
    with pytest.raises(ConfigError, match=message):
        HashWeightedConfig(num_components=num_components, compression_ratio=4).plan(one(1000))
    assert HashWeightedConfig(num_components=num_components).plan(one(1000)).num_bytes == 64_000, "nothing to save"


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_components", [1, 2, 3])
def test_values_and_gradients_equal_the_dense_reference(num_components: int, kind: str, check: str) -> None:
    config = HashWeightedConfig(num_components=num_components, compression_ratio=1.6)
    plan = config.plan(features(kind, width=6, linear=True))
    assert any(entry.combiner.target.endswith("WeightedSum") for entry in plan.features)
    CHECKS[check](plan, reference.random_bags(SIZES, 9, seed=0, max_length=KINDS[kind][0]))


def test_parts_script() -> None:
    ids, remap = torch.arange(6), HashWeightedRemap(7, [1, -2])
    rows = [torch.randn(6, 2), torch.randn(6, 4), torch.randn(6, 4)]
    assert torch.equal(torch.jit.script(remap)(ids), remap(ids))
    assert torch.equal(torch.jit.script(WeightedSum())(ids, rows), WeightedSum()(ids, rows))


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_components=0: must be 1 or more"):
        HashWeightedConfig(num_components=0)
    for width in (1, 8):
        with pytest.raises(ConfigError, match="'ip' has no vocabulary"):
            HashWeightedConfig().plan([FeatureSpec(name="ip", embedding_dim=width, num_embeddings=None)])
