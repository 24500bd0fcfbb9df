"""`tt_rec`: digits, contraction and bytes worked out by hand; the rank that a budget buys; initial weights."""

import math

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.core.specs import Distribution, FeatureSpec, Init
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.tt_rec import DigitsRemap, TensorTrain, TTRecConfig, factors, max_rank, radices
from tests.embeddings import dense_reference as reference
from tests.embeddings.met_or_refused import check_budgets, features_of
from tests.embeddings.test_dense_parity import CHECKS, KINDS

BAGS = {"user": 512, "type": 343, "tags": 1000}


def one(size: int, width: int = 16) -> list[FeatureSpec]:
    return [FeatureSpec(name="a", embedding_dim=width, num_embeddings=size)]


def planned(num_floats: int, features: list[FeatureSpec]) -> TablePlan:
    return TTRecConfig(budget_mib=num_floats * 4 / 2**20).plan(features)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, [1, 1, 1]),
        (2, [1, 1, 2]),
        (8, [2, 2, 2]),
        (9, [2, 2, 3]),
        (1000, [10, 10, 10]),  # the float 1000 ** (1 / 3) is 9.999999999999998
        (1001, [10, 10, 11]),
        (10**6 + 1, [100, 100, 101]),
        (33_762_577, [323, 323, 324]),
        (10**18, [10**6, 10**6, 10**6]),
        (10**18 + 1, [10**6, 10**6, 10**6 + 1]),
    ],
)
def test_radices_are_those_of_the_survey(size: int, expected: list[int]) -> None:
    """n1 = ceil(n^(1/3)), n2 = ceil((n / n1)^(1/2)), n3 = ceil(n / n1 / n2), in the order n3, n2, n1."""
    assert radices(size) == expected


def test_radices_hold_all_ids_and_little_more() -> None:
    for size in [*range(1, 3000), 10**7 + 19]:
        rows = radices(size)
        assert math.prod(rows) >= size and rows == sorted(rows)
        assert (rows[0] - 1) * rows[1] * rows[2] < size


@pytest.mark.parametrize(
    ("width", "expected", "rank"),
    [
        (16, [2, 2, 4], 22),
        (10, [1, 2, 5], 22),
        (32, [2, 4, 4], 16),
        (64, [4, 4, 4], 16),
        (39, [1, 3, 13], 18),
        (1, [1, 1, 1], 32),
        (7, [1, 1, 7], 32),
    ],
)
def test_factors_and_the_highest_rank(width: int, expected: list[int], rank: int) -> None:
    assert factors(width) == expected and max_rank(expected) == rank
    assert max(expected[0] * rank, expected[1] * rank**2, expected[2] * rank) <= 1024


@pytest.mark.parametrize("size", [1, 7, 60, 1000])
def test_digits_tell_all_ids_apart(size: int) -> None:
    rows = radices(size)
    digits = DigitsRemap(num_rows=rows)(torch.arange(size))
    assert len(set(map(tuple, digits.t().tolist()))) == size
    assert all(int(digit.max()) < num for digit, num in zip(digits, rows, strict=True))


def test_golden_digits() -> None:
    digits = DigitsRemap(num_rows=[323, 323, 324])(torch.tensor([0, 323, 324, 104_652, 33_762_576]))
    assert digits.t().tolist() == [[0, 0, 0], [0, 0, 323], [0, 1, 0], [1, 0, 0], [322, 199, 156]]


def test_contraction_worked_out_by_hand() -> None:
    """d = 1 * 2 * 2, r = 2: e[j2, j3] = sum over a, b of G1[a] G2[a, j2, b] G3[b, j3]."""
    rows = [[[1, 10]], [[1, 2, 3, 4, 5, 6, 7, 8]], [[1, 2, 3, 4]]]
    # G1 G2, by j2: b = 0: 1 + 50, 3 + 70; b = 1: 2 + 60, 4 + 80
    expected = [51 * 1 + 62 * 3, 51 * 2 + 62 * 4, 73 * 1 + 84 * 3, 73 * 2 + 84 * 4]
    combined = TensorTrain(dims=[1, 2, 2], rank=2)(torch.tensor([0]), [torch.tensor(row).float() for row in rows])
    assert combined.tolist() == [expected]


def test_bytes_worked_out_by_hand() -> None:
    """r (n3 d1 + n2 d2 r + n1 d3), n = 1000 = 10^3 and d = 16 = 2 * 2 * 4."""
    features = one(1000)
    for rank in (1, 2, 9, 22):
        floats = rank * (10 * 2 + 10 * 2 * rank + 10 * 4)
        for plan in (planned(floats, features), planned(floats + 60, features)):
            assert plan.features[0].combiner.params["rank"] == rank
            assert plan.num_bytes == floats * 4
            widths = [(table.num_embeddings, table.embedding_dim) for table in plan.tables]
            assert widths == [(10, 2 * rank), (10, 2 * rank * rank), (10, 4 * rank)]


def test_the_rank_is_one_for_all_features_and_small_ones_stay_full() -> None:
    plan = TTRecConfig(compression_ratio=10).plan(features_of((5, 20_000, 8, 50_000), 16, counted=False, linear=False))
    kinds = [entry.remap.target.rpartition(".")[2] for entry in plan.features]
    assert kinds == ["Identity", "DigitsRemap", "Identity", "DigitsRemap"]
    ranks = {entry.combiner.params["rank"] for entry in plan.features if "rank" in entry.combiner.params}
    assert len(ranks) == 1


def test_memory_ends_at_the_highest_rank() -> None:
    plan = TTRecConfig(compression_ratio=2).plan(one(10**6))
    assert plan.features[0].combiner.params["rank"] == 22
    assert plan.num_bytes == 4 * 22 * 100 * (2 + 2 * 22 + 4)


def test_budgets_are_met_or_the_floor_is_told() -> None:
    check_budgets(lambda ratio: TTRecConfig(compression_ratio=ratio))


@pytest.mark.parametrize("check_kind", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 6])
def test_values_and_gradients_equal_the_dense_reference(kind: str, check_kind: str, width: int) -> None:
    max_length, pooling = KINDS[kind]
    specs = [
        FeatureSpec(name=name, embedding_dim=width, num_embeddings=size, pooling=pooling, max_length=max_length)
        for name, size in BAGS.items()
    ]
    plan = TTRecConfig(compression_ratio=4).plan(specs)
    assert all(len(entry.tables) == 3 for entry in plan.features)
    CHECKS[check_kind](plan, reference.random_bags(BAGS, 4, seed=0, max_length=max_length))


@pytest.mark.parametrize("distribution", [Distribution.NORMAL, Distribution.UNIFORM])
@pytest.mark.parametrize("ratio", [15, 300])
def test_composed_embeddings_start_at_the_scale_of_full_ones(distribution: Distribution, ratio: float) -> None:
    torch.manual_seed(0)
    init = Init(distribution=distribution, scale=0.03)
    plan = TTRecConfig(init=init, compression_ratio=ratio).plan(one(100_000))
    embedded = PlannedEmbeddingBagCollection(plan)(reference.jagged({"a": [[i] for i in range(0, 100_000, 97)]}))
    assert embedded.values().std().item() == pytest.approx(init.deviation, rel=0.15)
    assert abs(embedded.values().mean().item()) < init.deviation / 5


def test_cores_start_without_small_values() -> None:
    torch.manual_seed(0)
    weight = Init(distribution=Distribution.TAILS, scale=0.5, center=3.0).fill_(torch.empty(400, 500))
    assert weight.mean().item() == pytest.approx(3, abs=0.01) and weight.std().item() == pytest.approx(0.5, rel=0.01)
    # 1 / E[z^2 | |z| > 2]^(1/2), z standard normal: 2 of 2.397 deviations
    assert (weight - 3).abs().min().item() == pytest.approx(0.5 * 2 / 2.3971, rel=1e-3)
    assert (weight > 3).float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_tails_are_those_of_a_normal_distribution() -> None:
    torch.manual_seed(0)
    sizes = Init(distribution=Distribution.TAILS, scale=2.3971).fill_(torch.empty(10**6)).abs()
    for bound in (2.2, 2.5, 3.0):
        share = math.erfc(bound / math.sqrt(2)) / math.erfc(2 / math.sqrt(2))
        assert (sizes > bound).float().mean().item() == pytest.approx(share, abs=3e-3)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"init.center=1: .*centred on zero"):
        TTRecConfig(init=Init(center=1))
    with pytest.raises(ConfigError, match="'ip' has no vocabulary"):
        TTRecConfig().plan([FeatureSpec(name="ip", embedding_dim=16, num_embeddings=None)])
    with pytest.raises(ConfigError, match=r"needs 320 bytes"):  # rank 1: 10 (2 + 2 + 4) floats
        planned(79, one(1000))
