import math
from itertools import product

import pytest
import torch

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.specs import Distribution, FeatureSpec, Init
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.quotient_remainder import (
    Combine,
    MixedRadixRemap,
    QuotientRemainderConfig,
    radices_within,
    smallest_radices,
)
from tests.embeddings import dense_reference as reference
from tests.embeddings.met_or_refused import check_budgets
from tests.embeddings.test_dense_parity import CHECKS, KINDS, SIZES, features


def one(size: int, width: int = 8) -> list[FeatureSpec]:
    return [FeatureSpec(name="a", embedding_dim=width, num_embeddings=size)]


def test_digits_worked_out_by_hand() -> None:
    """41 = 6 + 7 * (2 + 3 * 1); 20 = 6 + 7 * 2; 7 = 0 + 7 * 1."""
    rows = MixedRadixRemap([7, 3, 2])(torch.tensor([0, 6, 7, 20, 21, 41]))
    assert rows.T.tolist() == [[0, 0, 0], [6, 0, 0], [0, 1, 0], [6, 2, 0], [0, 0, 1], [6, 2, 1]]
    assert len(set(map(tuple, MixedRadixRemap([7, 3, 2])(torch.arange(42)).T.tolist()))) == 42


def test_digits_are_exact_above_what_floats_hold() -> None:
    ids = [2**61 + 12_345, 2**53 + 1, 2**62 - 1]
    rows = MixedRadixRemap([2**31 - 1, 2**20 + 7, 2**12])(torch.tensor(ids))
    for key, digits in zip(ids, rows.T.tolist(), strict=True):
        assert digits == [key % (2**31 - 1), key // (2**31 - 1) % (2**20 + 7), key // (2**31 - 1) // (2**20 + 7)]


@pytest.mark.parametrize("num_parts", [1, 2, 3, 4])
def test_smallest_radices_have_the_smallest_sum(num_parts: int) -> None:
    highest = {1: 40, 2: 40, 3: 8, 4: 5}[num_parts]
    least: dict[int, int] = {}
    for radices in product(range(1, highest + 1), repeat=num_parts):
        size = math.prod(radices)
        least[size] = min(sum(radices), least.get(size, 10**9))
    for size in range(1, 41):
        found = smallest_radices(size, num_parts)
        assert len(found) == num_parts and math.prod(found) >= size
        assert sum(found) == min(total for reached, total in least.items() if reached >= size)
        assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("size", [10**9, 10**12 - 1, 10**12, 10**12 + 1, 2**62])
@pytest.mark.parametrize("num_parts", [2, 3, 5])
def test_radices_of_large_vocabularies(size: int, num_parts: int) -> None:
    radices = smallest_radices(size, num_parts)
    assert math.prod(radices) >= size > math.prod([*radices[1:], min(radices) - 1]) and radices[0] - radices[-1] <= 1
    assert sum(radices) == pytest.approx(num_parts * size ** (1 / num_parts), rel=0.01, abs=num_parts)


@pytest.mark.parametrize("num_parts", [2, 3, 4])
def test_first_radix_is_the_largest_that_fits(num_parts: int) -> None:
    for size in range(1, 70, 3):
        for num_rows in range(sum(smallest_radices(size, num_parts)), size + num_parts + 3):
            first, *rest = radices_within(size, num_parts, num_rows)
            assert first <= size
            assert first + sum(rest) <= num_rows and first * math.prod(rest) >= size
            for larger in range(first + 1, min(num_rows, size) + 1):
                assert larger + sum(smallest_radices(math.ceil(size / larger), num_parts - 1)) > num_rows


@pytest.mark.parametrize("combine", [Combine.PRODUCT, Combine.CONCAT])
@pytest.mark.parametrize("num_parts", [2, 3, 5])
def test_budgets_are_met_or_the_floor_is_told(num_parts: int, combine: Combine) -> None:
    if combine is Combine.PRODUCT or num_parts == 2:  # others divide not all widths that are tried
        check_budgets(
            lambda ratio: QuotientRemainderConfig(num_parts=num_parts, combine=combine, compression_ratio=ratio)
        )


@pytest.mark.parametrize("combine", Combine)
@pytest.mark.parametrize("num_parts", [2, 3, 4])
def test_budgets_are_not_wasted(num_parts: int, combine: Combine) -> None:
    for ratio in (2, 5, 10, 100):
        plan = QuotientRemainderConfig(num_parts=num_parts, combine=combine, compression_ratio=ratio).plan(
            one(10**9, 12)
        )
        # A concatenation has no use for more than all ids' rows in one of its parts.
        expected = 48 * 10**9 / max(ratio, num_parts if combine is Combine.CONCAT else 1)
        assert 0.999 * expected < plan.num_bytes <= 48 * 10**9 / ratio


@pytest.mark.parametrize(
    ("size", "num_parts", "floor"), [(10_000, 2, 200), (10**6, 3, 300), (10**6, 4, 127), (8, 3, 6)]
)
@pytest.mark.parametrize("combine", Combine)
def test_floor_is_about_k_times_the_kth_root(size: int, num_parts: int, floor: int, combine: Combine) -> None:
    """4 parts of 10**6: 32 * 32 * 31 * 31 is too little, 32 * 32 * 32 * 31 enough."""
    width = 12
    expected = floor * (width // num_parts if combine is Combine.CONCAT else width) * 4
    with pytest.raises(ConfigError, match=f"needs {expected:,} bytes"):
        QuotientRemainderConfig(num_parts=num_parts, combine=combine, compression_ratio=1e6).plan(one(size, width))


@pytest.mark.parametrize("combine", Combine)
@pytest.mark.parametrize("num_parts", [2, 3, 4])
def test_ids_stay_apart_and_every_row_is_reached(num_parts: int, combine: Combine) -> None:
    for size in (101, 1000):
        for ratio in (1.3, 2, 3.1, 4):
            plan = QuotientRemainderConfig(num_parts=num_parts, combine=combine, compression_ratio=ratio).plan(
                one(size, 12)
            )
            (entry,) = plan.features
            rows = entry.remap.build()(torch.arange(size))
            assert len(set(map(tuple, rows.T.tolist()))) == size
            for name, used in zip(entry.tables, rows, strict=True):
                assert set(used.tolist()) == set(range(plan.table(name).num_embeddings))
            largest = max(range(len(rows)), key=lambda t: plan.table(entry.tables[t]).num_embeddings)
            counts = torch.bincount(rows[largest])
            assert counts.max() - counts.min() <= 1, "rows of the largest table are shared evenly"
            heads = plan.table(entry.tables[largest]).num_embeddings
            assert rows[largest, :heads].tolist() == list(range(heads)), "frequent ids differ in the largest table"


def test_parts_of_a_concatenation_are_narrow_and_a_linear_weight_is_summed() -> None:
    plan = QuotientRemainderConfig(num_parts=4, combine=Combine.CONCAT, compression_ratio=10).plan(
        [*one(5000, 8), FeatureSpec(name="a__linear", embedding_dim=1, num_embeddings=5000, source="a")]
    )
    assert [plan.table(name).embedding_dim for name in plan.features[0].tables] == [2, 2, 2, 2]
    assert plan.features[0].combiner.target.endswith(".Concat")
    assert plan.features[1].combiner.target.endswith(".Sum")
    assert plan.num_bytes <= 5000 * 9 * 4 / 10


@pytest.mark.parametrize("init", [Init(scale=0.02), Init(distribution=Distribution.UNIFORM, scale=0.05)])
@pytest.mark.parametrize("combine", Combine)
@pytest.mark.parametrize("num_parts", [2, 3, 4])
@pytest.mark.parametrize("size", [500, 5000])
def test_composed_embeddings_have_the_scale_of_init(num_parts: int, combine: Combine, size: int, init: Init) -> None:
    torch.manual_seed(0)
    config = QuotientRemainderConfig(num_parts=num_parts, combine=combine, compression_ratio=3, init=init)
    plan = config.plan(one(size, 480))
    assert len(plan.tables) == num_parts
    ids = torch.randint(size, (400,), generator=torch.Generator().manual_seed(1)).tolist()
    embedded = PlannedEmbeddingBagCollection(plan)(reference.jagged({"a": [[i] for i in ids]})).values()
    deviation = init.scale / math.sqrt(3) if init.distribution is Distribution.UNIFORM else init.scale
    assert embedded.pow(2).mean().sqrt().item() == pytest.approx(deviation, rel=0.08)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("combine", Combine)
@pytest.mark.parametrize("num_parts", [2, 3])
def test_values_and_gradients_equal_the_dense_reference(
    num_parts: int, combine: Combine, kind: str, check: str
) -> None:
    config = QuotientRemainderConfig(num_parts=num_parts, combine=combine, compression_ratio=1.6)
    plan = config.plan(features(kind, width=6, linear=True))
    assert any(len(entry.tables) == num_parts for entry in plan.features)
    CHECKS[check](plan, reference.random_bags(SIZES, 9, seed=0, max_length=KINDS[kind][0]))


def test_remap_scripts() -> None:
    remap = Component.of(MixedRadixRemap, radices=[5, 3, 2]).build()
    assert torch.equal(torch.jit.script(remap)(torch.arange(30)), remap(torch.arange(30)))


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"num_parts": 1}, ("num_parts=1", "2 parts or more")),
        ({"num_parts": 3, "combine": Combine.CONCAT}, ("num_parts=3", "width 8", "divisor of 8", "combine=sum")),
    ],
)
def test_impossible_parts_are_refused(config: dict[str, int], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        QuotientRemainderConfig(**config).plan(one(100))  # type: ignore[arg-type]
    assert all(part in str(error.value) for part in parts), error.value


def test_a_vocabulary_of_one_keeps_its_row() -> None:
    for num_parts, combine in product((2, 4), Combine):
        plan = QuotientRemainderConfig(num_parts=num_parts, combine=combine).plan(one(1))
        assert [table.num_embeddings for table in plan.tables] == [1] and plan.num_bytes == 32
