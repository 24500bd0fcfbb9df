import pytest
import torch

from recsys.ops.quotient_remainder import quotient_remainder


@pytest.mark.parametrize("num_remainders", [1, 2, 3, 7, 64, 65, 1000])
def test_equals_divmod_and_distinct_ids_get_distinct_row_pairs(num_remainders: int) -> None:
    quotient, remainder = quotient_remainder(torch.arange(1000), num_remainders)
    pairs = list(zip(quotient.tolist(), remainder.tolist(), strict=True))
    assert pairs == [divmod(i, num_remainders) for i in range(1000)]
    assert len(set(pairs)) == 1000


@pytest.mark.parametrize("base", [2**24, 2**31, 2**53, 2**62])
@pytest.mark.parametrize("num_remainders", [3, 4, 10_007])
def test_rows_above_float_precision(base: int, num_remainders: int) -> None:
    ids = [base + step for step in range(-5, 6)]
    quotient, remainder = quotient_remainder(torch.tensor(ids), num_remainders)
    assert list(zip(quotient.tolist(), remainder.tolist(), strict=True)) == [divmod(i, num_remainders) for i in ids]


def test_row_of_the_published_code_that_float_division_misses() -> None:
    quotient, remainder = quotient_remainder(torch.tensor([2**24 + 3]), 4)
    assert (quotient.item(), remainder.item()) == (4_194_304, 3)


def test_keeps_shape_and_type() -> None:
    for shape in [(0,), (2, 3), ()]:
        for rows in quotient_remainder(torch.zeros(shape, dtype=torch.int64), 3):
            assert rows.shape == shape and rows.dtype == torch.int64


def test_scripted_equals_eager() -> None:
    ids = torch.arange(2**24 - 50, 2**24 + 50)
    for scripted, eager in zip(torch.jit.script(quotient_remainder)(ids, 7), quotient_remainder(ids, 7), strict=True):
        assert torch.equal(scripted, eager)
