"""Integers of few bits, packed without gaps: codes and pointers that are read by position."""

import torch
from torch import Tensor

MAX_BITS = 24
"""An integer and the bits before it in its first byte lie within four bytes."""


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` packed integers, with the three that let the last one be read like any other."""
    return (count * bits + 7) // 8 + 3


def bits_for(count: int) -> int:
    """Bits that tell `count` values apart, at least 1."""
    return max(1, (count - 1).bit_length())


def pack(values: Tensor, bits: int) -> Tensor:
    """Pack integers.

    Args:
        values: integers in [0, 2**bits), any shape; packed in row-major order.
        bits: of each, in [1, 24].
    Returns:
        uint8, shape (`packed_bytes(values.numel(), bits)`,), little-endian bit order.
    """
    assert 1 <= bits <= MAX_BITS, f"bits={bits}"
    flat = values.reshape(-1).to(torch.int64)
    buffer = torch.zeros(packed_bytes(flat.numel(), bits), dtype=torch.int64)
    step = 1 << 20  # bounds the memory of bits held one by one
    for start in range(0, flat.numel(), step):
        part = flat[start : start + step]
        places = (torch.arange(start, start + part.numel()) * bits).unsqueeze(1) + torch.arange(bits)
        ones = (part.unsqueeze(1) >> torch.arange(bits)) & 1
        buffer.index_add_(0, (places >> 3).reshape(-1), (ones << (places & 7)).reshape(-1))
    return buffer.to(torch.uint8)


def unpack(buffer: Tensor, index: Tensor, bits: int) -> Tensor:
    """Read packed integers by their positions.

    Args:
        buffer: what `pack` returned, uint8.
        index: int64, any shape.
        bits: as packed.
    Returns:
        int64, shape of `index`.
    """
    first = index * bits
    byte = first >> 3
    word = buffer[byte].to(torch.int64)
    for k in range(1, 4):
        word = word | (buffer[byte + k].to(torch.int64) << (8 * k))
    return (word >> (first & 7)) & ((1 << bits) - 1)
