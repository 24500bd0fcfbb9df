"""Order statistics of more values than memory holds."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

BINS = 1 << 16

Values = npt.NDArray[np.int64]


def value_of_rank(rank: int, columns: Callable[[], Iterator[Values]], *, low: int, high: int) -> int:
    """The value at that place, from 0, of all values in ascending order; exact.

    Counts them in `BINS` bins, then again inside the bin that holds it: at most four times, for times of one year in
    seconds twice.

    Args:
        columns: gives all values, in pieces; called for each count.
        low, high: bounds of all values, less than 2**63 apart.
    """
    while low < high:
        width = (high - low) // BINS + 1
        counts = np.zeros(BINS, dtype=np.int64)
        for column in columns():
            inside = column[(column >= low) & (column <= high)]
            counts += np.bincount((inside - low) // width, minlength=BINS)
        ends = counts.cumsum()
        at = int(np.searchsorted(ends, rank, side="right"))
        rank -= int(ends[at] - counts[at])
        low, high = low + at * width, min(low + (at + 1) * width - 1, high)
    return low
