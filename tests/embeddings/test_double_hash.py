from dataclasses import replace

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec, Init
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.double_hash import DoubleHashConfig, DoubleHashRemap, Join
from recsys.ops.hashing import salt_for
from tests.embeddings import dense_reference as reference
from tests.embeddings.met_or_refused import check_budgets
from tests.embeddings.test_dense_parity import CHECKS, EXTREMES, KINDS, SIZES, features
from tests.embeddings.uniform import assert_uniform
from tests.ops import splitmix64

A = FeatureSpec(name="a", embedding_dim=8, num_embeddings=1000, octave_counts=(500, 400, 300, 200, 100, 90, 80, 70, 60))
B = FeatureSpec(name="b", embedding_dim=8, num_embeddings=50, octave_counts=(50, 40, 30, 2))
IP = FeatureSpec(name="ip", embedding_dim=8, num_embeddings=None, octave_counts=(1,) * 10)


def test_rows_worked_out_by_hand() -> None:
    """Ids 0 to 2 own rows 10 and 11, 12 and 13, 14 and 15; the mixes below are those of SplitMix64's first outputs."""
    remap = DoubleHashRemap(3, first_head=10, rows_per_head=2, shared=[100, 1000], salts=[-7046029254386353131, 0])
    rows = remap(torch.tensor([0, 1, 2, 3, -1]))
    assert rows[:, :3].tolist() == [[10, 12, 14], [11, 13, 15]]
    assert rows[1, 3].item() == 100 + splitmix64.mix(3) % 2**63 % 1000
    # SplitMix64 seeded with -1 and 0: mix(-1 + gamma), as a mixed state of 64 bits.
    assert rows[0, 4].item() == 100 + splitmix64.mix(0x9E3779B97F4A7C14) % 2**63 % 1000
    once = DoubleHashRemap(3, first_head=10, rows_per_head=1, shared=[100, 1000], salts=[1, 2])
    assert once(torch.arange(3)).tolist() == [[10, 11, 12]] * 2


@pytest.mark.parametrize("join", Join)
def test_heads_own_rows_and_all_rows_belong_to_somebody(join: Join) -> None:
    plan = DoubleHashConfig(join=join, head_share=0.5, compression_ratio=5).plan([A, B, IP])
    (table,) = plan.tables
    rows_per_head = 2 if join is Join.CONCAT else 1
    assert table.embedding_dim == 8 // rows_per_head
    owned: list[int] = []
    params = [entry.remap.params for entry in plan.features]
    for entry in plan.features:
        count = entry.remap.params["num_heads"]
        rows = entry.remap.build()(torch.arange(count))
        owned += [*rows.reshape(-1).tolist()][: count * rows_per_head]
        if rows_per_head == 1:
            assert torch.equal(rows[0], rows[1])
        others = entry.remap.build()(torch.arange(count, 5000))
        assert int(others.min()) >= params[0]["shared"][0] and int(others.max()) < table.num_embeddings
    assert sorted(owned) == list(range(params[0]["shared"][0])), "no two heads share, and none lies idle"
    assert params[0]["shared"][0] == table.num_embeddings // 2 // rows_per_head * rows_per_head
    assert params[0]["shared"] == params[1]["shared"] == params[2]["shared"]
    assert params[2]["num_heads"] == 0 < params[1]["num_heads"] < params[0]["num_heads"]


def test_share_of_heads() -> None:
    for share, expected in ((0.0, 0), (0.25, 25), (0.99, 99)):
        plan = DoubleHashConfig(head_share=share, compression_ratio=10).plan([A])
        assert plan.features[0].remap.params["num_heads"] == expected
        assert plan.features[0].remap.params["shared"] == [expected, 100 - expected]


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("join", Join)
def test_shared_rows_are_reached_alike_and_the_two_look_ups_are_independent(join: Join, share: float) -> None:
    plan = DoubleHashConfig(join=join, head_share=share, compression_ratio=10).plan([A, IP])
    generator = torch.Generator().manual_seed(0)
    for entry in plan.features:
        first, number = entry.remap.params["shared"]
        remap = entry.remap.build()
        for ids in (torch.arange(2000, 202_000), torch.randint(-(2**63), 2**63 - 1, (200_000,), generator=generator)):
            rows = remap(ids) - first
            assert_uniform(rows[0], number)
            assert_uniform(rows[1], number)
            assert_uniform(rows[0] * number + rows[1], number**2)
    tails = [entry.remap.build()(torch.arange(2000, 202_000))[0] - first for entry in plan.features]
    assert_uniform(tails[0] * number + tails[1], number**2)


@pytest.mark.parametrize("join", Join)
def test_a_head_embeds_to_its_own_rows_and_moves_no_other_id(join: Join) -> None:
    plan = DoubleHashConfig(join=join, compression_ratio=10).plan([A])
    collection = PlannedEmbeddingBagCollection(plan)
    reference.randomise(collection, seed=0)
    ((_, weight),) = reference.table_parameters(collection).items()
    count = plan.features[0].remap.params["num_heads"]
    out = collection(reference.jagged({"a": [[i] for i in range(count)]})).values()
    heads = weight[: count * 2].reshape(count, 8) if join is Join.CONCAT else 2 * weight[:count]
    torch.testing.assert_close(out, heads)
    out.sum().backward()
    assert weight.grad is not None and not weight.grad[plan.features[0].remap.params["shared"][0] :].any()


@pytest.mark.parametrize("join", Join)
def test_budgets_are_met_or_the_floor_is_told(join: Join) -> None:
    check_budgets(lambda ratio: DoubleHashConfig(join=join, compression_ratio=ratio))


@pytest.mark.parametrize("ratio", [2, 5, 10, 100])
@pytest.mark.parametrize("join", Join)
def test_budgets_are_not_wasted(join: Join, ratio: int) -> None:
    plan = DoubleHashConfig(join=join, compression_ratio=ratio).plan([replace(A, num_embeddings=10**9), B])
    assert (10**9 + 50) * 32 / ratio - 32 < plan.num_bytes <= (10**9 + 50) * 32 / ratio


def test_a_budget_of_all_rows_gives_full_tables() -> None:
    for join in Join:
        plan = DoubleHashConfig(join=join).plan([A, B])
        assert {entry.remap.target.rpartition(".")[2] for entry in plan.features} == {"Identity"}
        assert plan.num_bytes == 1050 * 32
    assert [t.name for t in DoubleHashConfig().plan([A, B, IP]).tables] == ["table_double_hash_a"]
    assert DoubleHashConfig().plan([replace(A, num_embeddings=1)]).num_bytes == 32


def test_linear_weights_are_summed() -> None:
    plan = DoubleHashConfig(join=Join.CONCAT, compression_ratio=4).plan(
        [A, replace(A, name="a__linear", source="a", embedding_dim=1)]
    )
    assert [entry.combiner.target.rpartition(".")[2] for entry in plan.features] == ["Concat", "Sum"]
    assert [table.num_embeddings for table in plan.tables] == [250, 500]  # of width 1 and of width 4


@pytest.mark.parametrize("join", Join)
def test_hashed_ids_start_at_the_scale_of_init(join: Join) -> None:
    torch.manual_seed(0)
    config = DoubleHashConfig(join=join, init=Init(scale=0.02), head_share=0.1, compression_ratio=2)
    plan = config.plan([replace(A, num_embeddings=20_000, embedding_dim=64)])
    ids = torch.arange(19_000, 19_500)
    out = PlannedEmbeddingBagCollection(plan)(reference.jagged({"a": [[i] for i in ids.tolist()]})).values()
    assert out.std().item() == pytest.approx(0.02, rel=0.05)


def test_salts_are_those_of_the_name_the_lookup_and_the_seed() -> None:
    plan = DoubleHashConfig(seed=9, compression_ratio=3).plan([A, B])
    for entry in plan.features:
        assert entry.remap.params["salts"] == [splitmix64.salt(entry.feature.name, t, 9) for t in range(2)]
        assert entry.remap.params["salts"] == [salt_for(entry.feature.name, t, 9) for t in range(2)]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("join", Join)
def test_values_and_gradients_equal_the_dense_reference(join: Join, kind: str, check: str) -> None:
    plan = DoubleHashConfig(join=join, head_share=0.5, compression_ratio=2.5).plan(features(kind, width=6, linear=True))
    assert any(0 < e.remap.params["num_heads"] < SIZES[e.feature.source] for e in plan.features)
    CHECKS[check](plan, reference.random_bags(SIZES, 9, seed=0, max_length=KINDS[kind][0]))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("join", Join)
def test_any_int64_is_an_id_of_a_hashed_feature(join: Join, check: str) -> None:
    plan = DoubleHashConfig(join=join, compression_ratio=4).plan([A, IP])
    CHECKS[check](plan, {"ip": [EXTREMES, [], [EXTREMES[0]]], "a": [[0], [999], []]})
    remap = plan.features[1].remap.build()
    assert torch.equal(torch.jit.script(remap)(torch.tensor(EXTREMES)), remap(torch.tensor(EXTREMES)))


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"head_share": 1.0}, ("head_share=1.0", "[0, 1)")),
        ({"head_share": -0.1}, ("head_share=-0.1", "[0, 1)")),
        ({"join": Join.CONCAT}, ("join=concat", "width 9", "even", "join=sum")),
    ],
)
def test_impossible_values_are_refused(config: dict[str, float], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        DoubleHashConfig(**config).plan([replace(A, embedding_dim=9)])  # type: ignore[arg-type]
    assert all(part in str(error.value) for part in parts), error.value
