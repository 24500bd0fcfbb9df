"""The row hash once more, in Python integers masked to 64 bits: shares no code with `recsys.ops.hashing`."""

MASK = 2**64 - 1


def mix(state: int) -> int:
    """Finaliser of SplitMix64 on an unsigned 64-bit state."""
    state &= MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def signed(state: int) -> int:
    """The int64 of the same bits."""
    return state - 2**64 if state >= 2**63 else state


def row(key: int, salt: int, num_rows: int) -> int:
    """Row of a signed key under a signed salt."""
    return (mix(key + salt) % 2**63) % num_rows


def salt(name: str, lookup: int, seed: int) -> int:
    """Salt of one look-up of a feature: FNV-1a of the name, moved by the seed, then by the number of the look-up."""
    state = 14695981039346656037
    for byte in name.encode("utf-8"):
        state = ((state ^ byte) * 1099511628211) & MASK
    return signed(mix(mix(state + seed * 0x9E3779B97F4A7C15) + lookup + 1))
