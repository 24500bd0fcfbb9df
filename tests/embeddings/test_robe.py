"""`robe`: blocks of one circular array, cut out of pairs of rows and signed, against the paper's own indexing."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.modules import is_linear
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.robe import BlockRemap, Blocks, RobeConfig
from tests.embeddings import dense_reference as reference
from tests.embeddings.met_or_refused import check_budgets
from tests.embeddings.test_dense_parity import CHECKS, KINDS, features
from tests.embeddings.test_dense_parity import SIZES as BAGS
from tests.embeddings.uniform import assert_uniform
from tests.ops import splitmix64

EXTREMES = [2**63 - 1, -(2**63), -1, 0, 2**53 + 1]


def one(width: int = 16, size: int = 1000) -> list[FeatureSpec]:
    return [FeatureSpec(name="a", embedding_dim=width, num_embeddings=size)]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("width", "block"), [(16, 8), (16, 16), (16, 1), (10, 4), (5, 3), (4, 32), (1, 8)])
def test_embeddings_are_those_of_the_papers_array(width: int, block: int, signed: bool) -> None:
    """e[i] = sign(block) * array[(place(block) + i mod Z) mod |array|], on the flat array and id by id."""
    config = RobeConfig(block_size=block, signed=signed, compression_ratio=30)
    plan = config.plan(one(width))
    collection = PlannedEmbeddingBagCollection(plan)
    (table,) = plan.tables
    values = torch.arange(1.0, table.num_embeddings * table.embedding_dim + 1)
    with torch.no_grad():
        (weight,) = reference.table_parameters(collection).values()
        weight.fill_(torch.nan)[:, : table.embedding_dim] = values.reshape(-1, table.embedding_dim)
    size = min(block, width)
    count = -(-width // size)
    out = collection(reference.jagged({"a": [[key] for key in range(1000)]})).values()
    for key in range(1000):
        for i in range(width):
            place = splitmix64.row(key, splitmix64.salt("a", i // size, 0), len(values)) + i % size
            bit = splitmix64.mix(key + splitmix64.salt("a", count + i // size, 0)) & 1
            sign = -1 if signed and bit else 1
            assert out[key, i].item() == sign * (place % len(values) + 1)


def test_the_array_is_circular() -> None:
    remap = BlockRemap(num_rows=3, block_size=2, salts=[splitmix64.salt("a", 0, 0)])
    first, second = remap(torch.arange(100))
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == {(0, 1), (1, 2), (2, 0)}
    alone = BlockRemap(num_rows=1, block_size=2, salts=[1, 2])
    assert not alone(torch.arange(9)).any() and alone.rows_needed() == [1] * 4


def test_golden_places_and_signs() -> None:
    plan = RobeConfig(compression_ratio=10).plan(one())
    (entry,) = plan.features
    assert plan.tables[0].num_embeddings == 200 and entry.remap.params["salts"] == GOLDEN_SALTS
    keys = torch.tensor([0, 1, 999, 2**63 - 1])
    assert entry.remap.build()(keys).tolist() == GOLDEN_ROWS
    ramp = torch.arange(1.0, 17.0)
    rows = [ramp[:8].expand(4, 8)] * 2 + [ramp[8:].expand(4, 8)] * 2
    assert entry.combiner.build()(keys, rows)[:, ::8].tolist() == GOLDEN_STARTS


GOLDEN_SALTS = [783010245506371784, -6088735360528899963]
GOLDEN_ROWS = [[100, 150, 52, 18], [186, 105, 178, 10], [101, 151, 53, 19], [187, 106, 179, 11]]
"""By look-up: the rows where the two blocks start, then the rows after them; from the hash in Python integers."""
GOLDEN_STARTS = [[-1.0, 1.0], [6.0, -2.0], [3.0, -4.0], [-3.0, 8.0]]
"""By key: the first value of each block of an array 1, 2, ... 16, with its sign."""


def test_one_array_for_all_features_of_a_width() -> None:
    specs = features("one-hot", width=16, linear=True)
    plan = RobeConfig(compression_ratio=2).plan(specs)
    assert [(t.name, t.embedding_dim) for t in plan.tables] == [("table_robe_user__linear", 1), ("table_robe_user", 8)]
    assert {entry.tables for entry in plan.features} == {("table_robe_user",) * 4, ("table_robe_user__linear",)}
    salts = [salt for entry in plan.features for salt in entry.remap.params["salts"]]
    assert len(set(salts)) == len(salts), "equal ids of two features read different places"


def test_places_and_signs_are_even() -> None:
    plan = RobeConfig(compression_ratio=80, block_size=4).plan(one(size=20_000))
    (entry,), (table,) = plan.features, plan.tables
    assert table.num_embeddings == 1000
    keys = torch.arange(20_000)
    first = entry.remap.build()(keys)[:4]
    salts = torch.tensor(entry.combiner.params["salts"])
    ramp = torch.arange(1.0, 9.0)
    rows = [ramp[:4].expand(20_000, 4)] * 4 + [ramp[4:].expand(20_000, 4)] * 4
    starts = entry.combiner.build()(keys, rows)[:, ::4].t()
    assert salts.numel() == 4
    for block in range(4):
        assert_uniform(first[block] * 4 + starts[block].abs().long() - 1, 4000)
        assert_uniform((starts[block] > 0).long() + 2 * (first[block] % 2), 4)


@pytest.mark.parametrize(
    ("block", "signed", "lookups", "linear"), [(8, True, 4, False), (1, True, 16, False), (1, False, 16, True)]
)
def test_look_ups_and_linearity(block: int, signed: bool, lookups: int, linear: bool) -> None:
    plan = RobeConfig(block_size=block, signed=signed, compression_ratio=2).plan(one())
    assert len(plan.features[0].tables) == lookups
    assert is_linear(plan.features[0].combiner.build()) == linear
    assert (PlannedEmbeddingBagCollection(plan).unpooled is None) is linear


def test_bytes_are_those_of_the_array() -> None:
    def planned(budget: int, block: int = 8) -> TablePlan:
        return RobeConfig(budget_mib=budget / 2**20, block_size=block).plan(one())

    assert planned(1000).num_bytes == 31 * 32  # whole rows
    assert planned(1003, block=1).num_bytes == 1000
    assert planned(32).num_bytes == 32
    with pytest.raises(ConfigError, match="needs 32 bytes"):
        planned(31)
    assert planned(10**9).num_bytes == 1000 * 16 * 4, "more places than there are values would lie idle"


def test_budgets_are_met_or_the_floor_is_told() -> None:
    check_budgets(lambda ratio: RobeConfig(compression_ratio=ratio))


@pytest.mark.parametrize("check_kind", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [RobeConfig(block_size=4), RobeConfig(block_size=1), RobeConfig(signed=False)])
def test_values_and_gradients_equal_the_dense_reference(kind: str, check_kind: str, config: RobeConfig) -> None:
    specs = features(kind, width=6, linear=True)
    plan = RobeConfig(block_size=config.block_size, signed=config.signed, compression_ratio=3).plan(specs)
    CHECKS[check_kind](plan, reference.random_bags(BAGS, 5, seed=0, max_length=KINDS[kind][0]))


@pytest.mark.parametrize("check_kind", CHECKS)
def test_any_int64_is_an_id_of_a_hashed_feature(check_kind: str) -> None:
    spec = FeatureSpec(name="ip", embedding_dim=8, num_embeddings=None, octave_counts=(1, 2, 4))
    CHECKS[check_kind](RobeConfig(block_size=3).plan([spec]), {"ip": [[key] for key in EXTREMES]})


def test_no_ids_give_no_embeddings() -> None:
    empty = torch.empty(0, dtype=torch.int64)
    assert Blocks(5, 3, [1, 2], [3, 4])(empty, [torch.empty(0, 3)] * 4).shape == (0, 5)
    assert BlockRemap(9, 3, [1, 2])(empty).shape == (4, 0)


@pytest.mark.parametrize("block", [0, -1, 1025])
def test_impossible_blocks_are_refused(block: int) -> None:
    with pytest.raises(ConfigError, match=rf"block_size={block}: .*1 to 1024"):
        RobeConfig(block_size=block)
