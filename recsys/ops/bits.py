"""Integers of few bits, packed without gaps: codes and pointers that are read by position."""

import torch
from torch import Tensor

from recsys.ops.pieces import at_once

MAX_BITS = 24
"""An integer and the bits before it in its first byte lie within four bytes."""

AT_ONCE = 1 << 20
"""Integers packed together, a multiple of 8: bounds the memory."""


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
    flat = values.reshape(-1)
    buffer = torch.zeros(packed_bytes(flat.numel(), bits), dtype=torch.uint8)
    for start in range(0, flat.numel(), AT_ONCE):
        part = flat[start : start + AT_ONCE].to(torch.int64)
        packed = _packed_eights(torch.nn.functional.pad(part, (0, -part.numel() % 8)).view(-1, 8), bits)
        first = start // 8 * bits
        buffer[first : first + packed.numel()] = packed[: buffer.numel() - first]
    return buffer


def _packed_eights(values: Tensor, bits: int) -> Tensor:
    """Values (G, 8), whose `bits` bytes a group share no byte with other groups -> uint8 (G * bits,)."""
    columns = torch.zeros(bits, values.shape[0], dtype=torch.int64)
    for number, value in enumerate(values.t().contiguous()):
        first, last = number * bits // 8, ((number + 1) * bits - 1) // 8
        shifted = value << (number * bits % 8)
        for byte in range(first, last + 1):
            columns[byte] |= (shifted >> (8 * (byte - first))) & 0xFF
    return columns.to(torch.uint8).t().reshape(-1)


def unpack(buffer: Tensor, index: Tensor, bits: int) -> Tensor:
    """Read packed integers by their positions.

    Args:
        buffer: what `pack` returned, uint8.
        index: int64, any shape.
        bits: as packed.
    Returns:
        int64, shape of `index`.
    """
    return _read(buffer, index * bits, bits)


def _read(buffer: Tensor, first: Tensor, bits: int) -> Tensor:
    """The integers that begin at bits `first`, int64 of any shape, which is used up."""
    byte = (first >> 3).reshape(-1)
    # Of single bytes `index_select` takes a quarter of the time of indexing.
    word = buffer.index_select(0, byte).to(torch.int64)
    # No more bytes than an integer can reach into, none where they never straddle two.
    for k in range(1, 1 if 8 % bits == 0 else (bits + 14) // 8):
        word.bitwise_or_(buffer.index_select(0, byte + k).to(torch.int64).bitwise_left_shift_(8 * k))
    return word.view(first.size()).bitwise_right_shift_(first.bitwise_and_(7)).bitwise_and_((1 << bits) - 1)


def unpack_into(values: Tensor, buffer: Tensor, ids: Tensor, bits: int) -> None:
    """Read the packed integers of some ids, each of which has P of them side by side.

    Args:
        values: to be filled, int64, shape (P, N).
        buffer: what `pack` returned for integers of shape (all ids, P).
        ids: int64, shape (N,).
        bits: as packed.
    """
    parts = torch.arange(values.size(0), device=ids.device).unsqueeze(1) * bits
    step = at_once(ids, (1 << 15) // max(values.size(0), 1))
    for start in range(0, ids.numel(), step):
        first = ids[start : start + step].unsqueeze(0) * (values.size(0) * bits) + parts
        values[:, start : start + step] = _read(buffer, first, bits)
