import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec, Init
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.memcom import MemComConfig, MemComRemap, ScaledRow
from tests.embeddings import dense_reference as reference
from tests.embeddings.met_or_refused import check_budgets
from tests.embeddings.test_dense_parity import CHECKS, KINDS, SIZES, features


def one(size: int, width: int = 8) -> list[FeatureSpec]:
    return [FeatureSpec(name="a", embedding_dim=width, num_embeddings=size)]


def test_rows_and_formula_worked_out_by_hand() -> None:
    """v = 1.5 and w = 3, stored as 0.5 and 3."""
    assert MemComRemap(10)(torch.tensor([0, 9, 10, 2**40 + 7])).tolist() == [[0, 9, 0, 3], [0, 9, 10, 2**40 + 7]]
    row, scalars = torch.tensor([[2.0, -4.0]]), torch.tensor([[0.5, 3.0]])
    assert ScaledRow(bias=True)(torch.zeros(1), [row, scalars]).tolist() == [[6.0, -3.0]]
    assert ScaledRow(bias=False)(torch.zeros(1), [row, scalars[:, :1]]).tolist() == [[3.0, -6.0]]


@pytest.mark.parametrize("bias", [False, True])
def test_embeddings_start_as_the_shared_rows(bias: bool) -> None:
    plan = MemComConfig(bias=bias, compression_ratio=3, init=Init(scale=0.5)).plan(one(100))
    collection = PlannedEmbeddingBagCollection(plan)
    weights = reference.table_parameters(collection)
    assert not weights["table_a_scalars"].any()
    num_shared = plan.table("table_a_shared").num_embeddings
    out = collection(reference.jagged({"a": [[i] for i in range(100)]})).values()
    torch.testing.assert_close(out, weights["table_a_shared"][torch.arange(100) % num_shared])
    out[0].sum().backward()
    gradient = weights["table_a_scalars"].grad
    assert gradient is not None and gradient[0, 0] != 0 and gradient[0, 1] == (8 if bias else 0)
    assert not gradient[1:].any(), "an id moves no other id's scalars"


@pytest.mark.parametrize("bias", [False, True])
def test_bytes_are_scalars_and_shared_rows(bias: bool) -> None:
    """1000 ids of 16 floats in a quarter: 16_000 bytes; 4_000 (8_000) of them scalars, the rest rows of 64 bytes."""
    plan = MemComConfig(bias=bias, compression_ratio=4).plan(one(1000, 16))
    shared = 125 if bias else 187
    assert {table.name: table.num_embeddings for table in plan.tables} == {
        "table_a_shared": shared,
        "table_a_scalars": 1000,
    }
    assert plan.num_bytes == (8_000 if bias else 4_000) + shared * 64


@pytest.mark.parametrize("bias", [False, True])
def test_budgets_are_met_or_the_floor_is_told(bias: bool) -> None:
    check_budgets(lambda ratio: MemComConfig(bias=bias, compression_ratio=ratio))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("ratio", [2, 5])
def test_budgets_are_not_wasted(ratio: int, bias: bool) -> None:
    plan = MemComConfig(bias=bias, compression_ratio=ratio).plan(one(10**9, 12))
    assert 48 * 10**9 / ratio - 48 < plan.num_bytes <= 48 * 10**9 / ratio


def test_floor_is_the_scalars_and_a_row() -> None:
    with pytest.raises(ConfigError, match=f"needs {1000 * 4 + 64:,} bytes"):
        MemComConfig(compression_ratio=1000).plan(one(1000, 16))


def test_rows_are_shared_evenly_and_frequent_ids_not_with_each_other() -> None:
    plan = MemComConfig(compression_ratio=4).plan(one(1000, 16))
    shared, own = plan.features[0].remap.build()(torch.arange(1000))
    counts = torch.bincount(shared)
    assert counts.numel() == 187 and set(counts.tolist()) == {5, 6}
    assert shared[:187].tolist() == list(range(187)) and own.tolist() == list(range(1000))


def test_linear_weights_are_hashed_so_that_the_budget_is_met() -> None:
    linear = FeatureSpec(name="a__linear", embedding_dim=1, num_embeddings=1000, source="a")
    plan = MemComConfig(compression_ratio=4).plan([*one(1000, 16), linear])
    assert plan.num_bytes <= 1000 * 17
    assert plan.features[1].remap.target.endswith(".HashRemap")
    assert plan.table("table_a__linear").num_embeddings == 250
    assert MemComConfig().plan([linear]).features[0].remap.target.endswith(".Identity")


def test_hashed_keys_have_no_scalars() -> None:
    for width in (1, 8):
        with pytest.raises(ConfigError, match="'ip' has no vocabulary"):
            MemComConfig(compression_ratio=3).plan([FeatureSpec(name="ip", embedding_dim=width, num_embeddings=None)])


def test_what_would_not_shrink_stays_full() -> None:
    plan = MemComConfig(compression_ratio=3).plan(
        [*one(1000), FeatureSpec(name="b", embedding_dim=8, num_embeddings=1)]
    )
    assert [entry.remap.target.rpartition(".")[2] for entry in plan.features] == ["MemComRemap", "Identity"]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_equal_the_dense_reference(bias: bool, kind: str, check: str) -> None:
    plan = MemComConfig(bias=bias, compression_ratio=1.6).plan(features(kind, width=6, linear=True))
    assert any(entry.combiner.target.endswith("ScaledRow") for entry in plan.features)
    CHECKS[check](plan, reference.random_bags(SIZES, 9, seed=0, max_length=KINDS[kind][0]))


@pytest.mark.parametrize("bias", [False, True])
def test_parts_script(bias: bool) -> None:
    ids, rows = torch.arange(6), [torch.randn(6, 4), torch.randn(6, 1 + bias)]
    assert torch.equal(torch.jit.script(MemComRemap(4))(ids), MemComRemap(4)(ids))
    assert torch.equal(torch.jit.script(ScaledRow(bias))(ids, rows), ScaledRow(bias)(ids, rows))
