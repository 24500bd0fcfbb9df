from collections import Counter

import pytest
import torch

from recsys.ops.hashing import hash_rows, mix64, salt_for
from tests.ops import splitmix64

INT64_MAX, INT64_MIN = 2**63 - 1, -(2**63)
EXTREMES = [INT64_MAX, INT64_MAX - 1, INT64_MIN, INT64_MIN + 1, -1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**62, -(2**62)]
GOLDEN = [
    [366011, 138634, 188203, 733565, 74927, 397315],
    [695049, 420789, 573592, 417508, 950365, 16994],
    [622807, 291961, 123892, 834204, 885427, 446695],
    [118320, 845727, 987563, 42531, 673109, 376132],
]
# chi-square quantile at 1 - 1e-9, by Wilson and Hilferty: six standard normal deviations
SIX_SIGMA = 6.0


def chi_square_bound(degrees: int) -> float:
    spread = 2 / (9 * degrees)
    return float(degrees * (1 - spread + SIX_SIGMA * spread**0.5) ** 3)


def chi_square(counts: torch.Tensor) -> float:
    expected = counts.sum().item() / counts.numel()
    return float(((counts - expected) ** 2 / expected).sum())


def test_mix64_of_splitmix64_known_answers() -> None:
    """Outputs 1, 2 and 3 of SplitMix64 seeded with 0, as published with the generator (Vigna, splitmix64.c)."""
    gamma = 0x9E3779B97F4A7C15
    states = [splitmix64.signed(step * gamma % 2**64) for step in (1, 2, 3)]
    mixed = [value % 2**64 for value in mix64(torch.tensor(states)).tolist()]
    assert mixed == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_mix64_equals_the_independent_implementation_on_small_and_extreme_keys() -> None:
    keys = [*range(-5_000, 20_000), *EXTREMES]
    assert mix64(torch.tensor(keys)).tolist() == [splitmix64.signed(splitmix64.mix(key)) for key in keys]


def test_mix64_is_injective_on_a_small_domain() -> None:
    assert len(set(mix64(torch.arange(-50_000, 50_000)).tolist())) == 100_000


@pytest.mark.parametrize("num_rows", [1, 2, 3, 1000, 2**20, 2**40 + 7])
def test_rows_equal_the_independent_implementation(num_rows: int) -> None:
    keys = [*range(-1_000, 3_000), *EXTREMES]
    salts = [0, 1, -1, INT64_MAX, INT64_MIN, splitmix64.salt("user", 0, 0)]
    rows = hash_rows(torch.tensor(keys), torch.tensor(salts), num_rows)
    assert rows.shape == (len(salts), len(keys))
    assert rows.tolist() == [[splitmix64.row(key, salt, num_rows) for key in keys] for salt in salts]


@pytest.mark.parametrize(
    ("name", "lookup", "seed"),
    [("user", 0, 0), ("user", 1, 0), ("item", 0, 0), ("user", 0, 7), ("user", 3, -7), ("größe", 0, 2**40), ("", 0, 0)],
)
def test_salts_equal_the_independent_implementation(name: str, lookup: int, seed: int) -> None:
    assert salt_for(name, lookup, seed) == splitmix64.salt(name, lookup, seed)


def test_golden_rows() -> None:
    """Frozen: a change here makes every stored checkpoint and bundle of hashed tables unusable."""
    salts = torch.tensor([salt_for("C1", 0, 0), salt_for("C1", 1, 0), salt_for("C2", 0, 0), salt_for("C1", 0, 1)])
    rows = hash_rows(torch.tensor([0, 1, 2, -1, INT64_MAX, INT64_MIN]), salts, 1_000_003)
    assert rows.tolist() == GOLDEN


def test_empty_ids() -> None:
    assert hash_rows(torch.empty(0, dtype=torch.int64), torch.tensor([1, 2]), 10).shape == (2, 0)


def test_salts_of_features_lookups_and_seeds_all_differ() -> None:
    salts = [salt_for(f"C{n}", lookup, seed) for n in range(40) for lookup in range(8) for seed in range(4)]
    assert len(set(salts)) == len(salts)


@pytest.mark.parametrize("other", [("item", 0, 0), ("user", 1, 0), ("user", 0, 1)])
def test_rows_are_independent_between_salts(other: tuple[str, int, int]) -> None:
    """All pairs of (row of the first look-up, row of the other) are about equally frequent over consecutive ids."""
    salts = torch.tensor([salt_for("user", 0, 0), salt_for(*other)])
    first, second = hash_rows(torch.arange(100_000), salts, 24)
    assert chi_square(torch.bincount(first * 24 + second, minlength=24 * 24)) < chi_square_bound(24 * 24 - 1)


@pytest.mark.parametrize("stride", [1, 2, 1024, 2**32])
@pytest.mark.parametrize("num_rows", [7, 64, 1000])
def test_rows_are_spread_evenly(num_rows: int, stride: int) -> None:
    rows = hash_rows(torch.arange(100_000) * stride, torch.tensor([salt_for("user", 0, 0)]), num_rows)
    assert int(rows.min()) >= 0 and int(rows.max()) < num_rows
    assert chi_square(torch.bincount(rows[0], minlength=num_rows)) < chi_square_bound(num_rows - 1)


def test_one_flipped_bit_of_the_id_flips_about_half_of_the_hash() -> None:
    keys = torch.randint(INT64_MIN, INT64_MAX, (4_000,), generator=torch.Generator().manual_seed(0))
    for bit in range(64):
        flipped = mix64(keys) ^ mix64(keys ^ (1 << bit if bit < 63 else INT64_MIN))
        ones = sum(value.bit_count() if value >= 0 else 64 - (~value).bit_count() for value in flipped.tolist())
        assert ones / (64 * 4_000) == pytest.approx(0.5, abs=0.01)


def test_scripted_equals_eager() -> None:
    ids = torch.tensor([*range(-500, 500), *EXTREMES])
    salts = torch.tensor([salt_for("a", lookup, 0) for lookup in range(3)])
    assert torch.equal(torch.jit.script(hash_rows)(ids, salts, 999), hash_rows(ids, salts, 999))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu() -> None:
    ids = torch.tensor([*range(-5_000, 5_000), *EXTREMES])
    salts = torch.tensor([salt_for("a", lookup, 0) for lookup in range(3)])
    assert torch.equal(hash_rows(ids.cuda(), salts.cuda(), 999).cpu(), hash_rows(ids, salts, 999))


def test_collisions_are_as_many_as_random_ones() -> None:
    """n ids in m rows leave about m * (1 - 1/m)**n rows empty."""
    num_rows = 5_000
    counts = Counter(hash_rows(torch.arange(10_000), torch.tensor([salt_for("user", 0, 0)]), num_rows)[0].tolist())
    assert num_rows - len(counts) == pytest.approx(num_rows * (1 - 1 / num_rows) ** 10_000, rel=0.1)


@pytest.mark.parametrize("count", [1, 3])
def test_ids_hash_alike_in_batches_of_any_size(count: int) -> None:
    ids, salts = torch.arange(-5, (1 << 17) + 9) * 977, torch.arange(count) - 1
    rows = torch.cat([hash_rows(some, salts, 999) for some in ids.split(40_000)], dim=1)
    assert torch.equal(hash_rows(ids, salts, 999), rows)
