"""Row hashing: a splitmix64-style integer mix, identical in eager, scripted, exported, CPU and CUDA.

All arithmetic is int64 with wrap-around, so constants above 2**63 are stored as their signed twins, and `>>`
(arithmetic on int64) is masked into a logical shift.
Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (finaliser of SplitMix64).
"""

import torch
from torch import Tensor

from recsys.ops.pieces import at_once

GOLDEN_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15


def mix64(keys: Tensor) -> Tensor:
    """Scramble 64-bit keys; a bijection.

    Args:
        keys: int64, any shape.
    Returns:
        int64, same shape; every input bit affects every output bit.
    """
    return mix64_(keys.clone())


def mix64_(keys: Tensor) -> Tensor:
    """Scramble 64-bit keys in place; see `mix64`. Twice as fast, because new memory costs more than the arithmetic."""
    # Literals, because TorchScript does not see a module's constants.
    shifted = (keys >> 30).bitwise_and_(0x3FFFFFFFF)
    keys.bitwise_xor_(shifted).mul_(-4658895280553007687)  # 0xBF58476D1CE4E5B9
    torch.bitwise_right_shift(keys, 27, out=shifted)
    keys.bitwise_xor_(shifted.bitwise_and_(0x1FFFFFFFFF)).mul_(-7723592293110705685)  # 0x94D049BB133111EB
    torch.bitwise_right_shift(keys, 31, out=shifted)
    return keys.bitwise_xor_(shifted.bitwise_and_(0x1FFFFFFFF))


def hash_rows(ids: Tensor, salts: Tensor, num_rows: int) -> Tensor:
    """Hash ids to rows, once per salt.

    The salt is scrambled and added before mixing, so that equal ids of two features, or two look-ups of one, land
    independently.

    Args:
        ids: int64, shape (N,), any value.
        salts: int64, shape (T,), one per look-up, already scrambled (`salt_for`).
        num_rows: rows of the table, >= 1.
    Returns:
        rows: int64, shape (T, N), each in [0, num_rows).
    """
    rows = torch.empty([salts.numel(), ids.numel()], dtype=torch.int64, device=ids.device)
    hash_rows_into(rows, ids, salts, num_rows)
    return rows


def hash_rows_into(rows: Tensor, ids: Tensor, salts: Tensor, num_rows: int) -> None:
    """`hash_rows` into a tensor that is there: int64, shape (T, N)."""
    step = at_once(ids, (1 << 17) // max(salts.numel(), 1))  # twice as fast on a CPU
    for start in range(0, ids.numel(), step):
        some = rows[:, start : start + step]
        torch.add(ids[start : start + step].unsqueeze(0), salts.unsqueeze(1), out=some)
        mix64_(some)
        if num_rows & (num_rows - 1) == 0:
            some.bitwise_and_(num_rows - 1)  # the same remainder; a division takes as long as all of the mixing
        else:
            some.bitwise_and_(0x7FFFFFFFFFFFFFFF).remainder_(num_rows)


def salt_for(name: str, lookup: int, seed: int) -> int:
    """The int64 salt of a look-up of the feature called `name`: names, not positions, so that a plan may reorder.

    FNV-1a over the UTF-8 bytes of `name`, then mixed with the look-up number and the seed.
    """
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = ((state ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    start = torch.tensor([state - 2**64 if state >= 2**63 else state], dtype=torch.int64)
    return int(mix64(mix64(start + torch.tensor([seed], dtype=torch.int64) * GOLDEN_GAMMA) + lookup + 1).item())
