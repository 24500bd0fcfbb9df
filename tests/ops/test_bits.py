"""Packed integers: bytes worked out by hand, and every width read back."""

import pytest
import torch

from recsys.ops import bits


def test_bytes_worked_out_by_hand() -> None:
    # 3-bit 5, 2, 7, 1 from the lowest bit up: 101 010 11|1 100 -> 0b11010101, 0b00000011
    assert bits.pack(torch.tensor([5, 2, 7, 1]), 3).tolist() == [0b11010101, 0b00000011, 0, 0, 0]


@pytest.mark.parametrize("width", range(1, bits.MAX_BITS + 1))
def test_every_width_is_read_back(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    values = torch.cat([torch.tensor([0, 2**width - 1]), torch.randint(2**width, (998,), generator=generator)])
    packed = bits.pack(values, width)
    assert packed.dtype == torch.uint8 and packed.numel() == bits.packed_bytes(1000, width)
    assert torch.equal(bits.unpack(packed, torch.arange(1000), width), values)
    index = torch.randint(1000, (7, 3), generator=generator)
    assert torch.equal(bits.unpack(packed, index, width), values[index])


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 24, 25])
@pytest.mark.parametrize("width", [1, 3, 8, 13, 24])
def test_packing_equals_one_large_integer(count: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is done in several parts."""
    monkeypatch.setattr(bits, "AT_ONCE", 16)
    values = torch.randint(2**width, (count,), generator=torch.Generator().manual_seed(count))
    whole = sum(value << (place * width) for place, value in enumerate(values.tolist()))
    assert bytes(bits.pack(values, width).tolist()) == whole.to_bytes(bits.packed_bytes(count, width), "little")


def test_scripted_equals_eager() -> None:
    packed = bits.pack(torch.arange(100), 7)
    index = torch.tensor([99, 0, 50])
    assert torch.jit.script(bits.unpack)(packed, index, 7).tolist() == [99, 0, 50]


@pytest.mark.parametrize(("count", "width"), [(1, 1), (2, 1), (3, 2), (256, 8), (257, 9)])
def test_bits_for(count: int, width: int) -> None:
    assert bits.bits_for(count) == width


def test_integers_of_ids_side_by_side_are_read_in_blocks() -> None:
    values = torch.randint(32, (40_000, 3), generator=torch.Generator().manual_seed(0))
    read = torch.empty(3, 40_000, dtype=torch.int64)
    bits.unpack_into(read, bits.pack(values, 5), torch.arange(40_000), 5)
    assert torch.equal(read, values.t())
