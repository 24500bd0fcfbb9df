"""Which split each raw row belongs to."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.core.labels import LabelStatistics
from recsys.data.dataset import SPLIT_NAMES, RawChunk, RawTable, Shard, SplitMethod
from recsys.data.raw import ROW
from recsys.ops.hashing import mix64, salt_for

logger = logging.getLogger(__name__)

DAY_FIRST = r"^\d\d?[./-]\d\d?[./-]\d\d"
NON_NEGATIVE = 0x7FFFFFFFFFFFFFFF
PART_BITS = 16
ROWS_AT_ONCE = 1 << 18
TIMES_AT_ONCE = 1 << 20
EXACT_INTEGERS = 2.0**24
"""Up to here float32 has every integer."""
STEPS_OF_SPREAD = 20
"""Of float32 that a standard deviation of labels must have: rounding then moves none by more than a 40th of it."""

Assign = Callable[[RawChunk], Tensor]
"""Split of each row of a chunk: int8 (rows,), an index into `SPLIT_NAMES`."""


def split_assigner(table: RawTable, shards: Sequence[Shard], *, seed: int, chunk_rows: int, strict: bool) -> Assign:
    """The rule of `table.split` as a function; TIME reads its column of the whole table first.

    Rows that are left out because of faults count in SHUFFLE's and ORDER's shares.

    Raises:
        DataError: a time is missing, or a file that gives the split names an unknown one.
    """
    method, num_rows = table.split.method, sum(shard.num_rows for shard in shards)
    if method is SplitMethod.GIVEN:
        return _given
    salt = salt_for("split", 0, seed)
    if method is SplitMethod.HASH:
        first, second = table.split.train, table.split.train + table.split.validation

        def by_hash(chunk: RawChunk) -> Tensor:
            part = (_row_hash(chunk.frame[ROW].to_torch(), salt) & NON_NEGATIVE).double() / 2.0**63
            return _number_of_cuts(part, (first, second))

        return by_hash
    if method is SplitMethod.TIME:
        return _by_time(table, table.chunks(shards, chunk_rows, strict=strict))
    cuts = [rank for rank in _exact_cuts(num_rows, table) if rank < num_rows]
    if method is SplitMethod.ORDER:
        return lambda chunk: _number_of_cuts(chunk.frame[ROW].to_torch(), cuts)
    # Hashes of rows differ all, and so shares are exact without an order of all rows in memory.
    hashes = hashes_of_ranks(cuts, num_rows, salt)
    return lambda chunk: _number_of_cuts(_row_hash(chunk.frame[ROW].to_torch(), salt), hashes)


def _given(chunk: RawChunk) -> Tensor:
    if chunk.split not in SPLIT_NAMES:
        raise DataError(f"split {chunk.split!r} of an input file: must be one of {SPLIT_NAMES}.")
    return torch.full((chunk.frame.height,), SPLIT_NAMES.index(chunk.split), dtype=torch.int8)


def _row_hash(rows: Tensor, salt: int) -> Tensor:
    # Our own hash, not a library's shuffle: the split must survive an upgrade.
    return mix64(rows + salt)


def _exact_cuts(num_rows: int, table: RawTable) -> tuple[int, int]:
    """Ranks where validation and test begin: both get their share rounded down, train the rest."""
    # Tolerance: 0.1 * 30 is 3.0000000000000004, but 0.29 * 100 is 28.999999999999996.
    validation, test = (int(num_rows * share + 1e-6) for share in (table.split.validation, table.split.test))
    return num_rows - validation - test, num_rows - test


def _number_of_cuts(values: Tensor, cuts: Sequence[float]) -> Tensor:
    """How many cuts lie at or below each value, int8."""
    found = torch.zeros(len(values), dtype=torch.int8)
    for cut in cuts:
        found += values >= cut
    return found


def hashes_of_ranks(ranks: Sequence[int], num_rows: int, salt: int) -> list[int]:
    """For each rank, the hash of a row below which so many lie, without sorting all: first in which part it is."""
    if not ranks:
        return []
    counts = torch.zeros(2**PART_BITS, dtype=torch.int64)
    for hashes in _hashes(num_rows, salt):
        counts += torch.bincount(_part(hashes), minlength=len(counts))
    ends = counts.cumsum(0)
    parts = torch.searchsorted(ends, torch.tensor(ranks), right=True).tolist()
    # By part; no tensors: small ones, kept, pin the memory of the large ones between them.
    inside: dict[int, list[int]] = {part: [] for part in parts}
    for hashes in _hashes(num_rows, salt):
        of_rows = _part(hashes)
        for part, found in inside.items():
            found += hashes[of_rows == part].tolist()
    before = ends - counts
    return [sorted(inside[part])[rank - int(before[part])] for rank, part in zip(ranks, parts, strict=True)]


def _hashes(num_rows: int, salt: int) -> Iterator[Tensor]:
    """Of all rows, some at a time."""
    for start in range(0, num_rows, ROWS_AT_ONCE):
        yield _row_hash(torch.arange(start, min(start + ROWS_AT_ONCE, num_rows)), salt)


def _part(hashes: Tensor) -> Tensor:
    """Number of the part of all int64 numbers that each lies in, ascending."""
    part: Tensor = (hashes >> (64 - PART_BITS)) + 2 ** (PART_BITS - 1)
    return part


def _by_time(table: RawTable, chunks: Iterable[RawChunk]) -> Assign:
    """Oldest rows first; rows of one time stay together, so the cuts move to where the next time begins.

    Raises:
        DataError: a time is missing or of another form than the others, or there are fewer times than splits.
    """
    name = table.split.column
    counts = _counted(
        chunk.frame.select(pl.col(name).alias("time"), pl.lit(1, pl.Int64).alias("len")) for chunk in chunks
    )
    ranked = _added_up([_sortable(counts, table)]).sort("time")
    times, ends = ranked["time"], ranked["len"].cum_sum().to_torch()
    cuts = _nearest_cuts(ends, table)
    bounds = [0, *cuts, len(times)]
    shares = (
        f"{split} {ranked['len'][low:high].sum() / int(ends[-1]):.1%} ({times[low]} … {times[high - 1]})"
        for split, low, high in zip(SPLIT_NAMES, bounds[:-1], bounds[1:], strict=True)
        if low < high
    )
    logger.info("split by time, between two values of %r: %s", name, ", ".join(shares))
    begins = [times[cut] for cut in cuts if cut < len(times)]

    def by_time(chunk: RawChunk) -> Tensor:
        found = chunk.frame[name].cast(times.dtype)
        codes = torch.zeros(len(found), dtype=torch.int8)
        for begin in begins:
            codes += (found >= begin).to_torch()
        return codes

    return by_time


def _counted(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Rows of each time, `time` and `len`, by when it was met first; what is held grows with times, not with rows."""
    known, waiting, height = list[pl.DataFrame](), list[pl.DataFrame](), 0
    for frame in frames:
        waiting.append(_added_up([frame]))
        height += waiting[-1].height
        if height > max(TIMES_AT_ONCE, sum(each.height for each in known)):
            known, waiting, height = [_added_up([*known, *waiting])], [], 0
    return _added_up([*known, *waiting])


def _added_up(counts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(counts).group_by("time", maintain_order=True).agg(pl.col("len").sum())


def _nearest_cuts(ends: Tensor, table: RawTable) -> tuple[int, int]:
    """How many times come before each of the cuts that lie nearest to the exact ones and leave no wanted split empty.

    Args:
        ends: rank after the last row of each time, int64, ascending.
    """
    wanted = [share > 0 for share in (table.split.validation, table.split.test)]
    if len(ends) < 1 + sum(wanted):
        raise DataError(
            f"data set {table.name!r}: column {table.split.column!r} has {len(ends)} different value(s), and a split "
            f"by time never cuts through one, so {1 + sum(wanted)} splits need as many. Name a column of finer times, "
            "or choose another split method."
        )
    first, second = _exact_cuts(int(ends[-1]), table)
    last = len(ends) - wanted[1]
    second_at = _nearest(ends, second, 1 + wanted[0], last) if wanted[1] else last
    return _nearest(ends, first, 1, second_at - 1) if wanted[0] else second_at, second_at


def _nearest(ends: Tensor, cut: int, low: int, high: int) -> int:
    """The number of times, `low` to `high`, after which the rank is nearest to `cut`; the smaller of two."""
    at = int(torch.searchsorted(ends[low - 1 : high - 1], cut)) + low  # the first that is not below, or `high`
    return at - 1 if at > low and cut - int(ends[at - 2]) <= abs(int(ends[at - 1]) - cut) else at


def _sortable(times: pl.DataFrame, table: RawTable) -> pl.DataFrame:
    """Text that is all numbers sorts as numbers; text that would sort otherwise than by time is refused."""
    if times["time"].dtype != pl.String:
        return times
    texts, numbers = times["time"], times["time"].cast(pl.Float64, strict=False)
    is_number = numbers.is_not_null() & numbers.is_not_nan().fill_null(False)
    if is_number.all():
        return times.with_columns(numbers.alias("time"))
    where = f"data set {table.name!r}: column {table.split.column!r}"
    if is_number.any():
        raise DataError(
            f"{where} holds numbers ({texts.filter(is_number)[0]!r}) and other texts "
            f"({texts.filter(~is_number)[0]!r}), which have no common order to split by. Make it one of the "
            "timestamps, so that what is no time is a fault of its row, or correct it."
        )
    shuffled = texts.filter(texts.str.contains(DAY_FIRST))
    if len(shuffled):
        raise DataError(
            f"{where} holds dates like {shuffled[0]!r}, whose text does not sort by time. Make it one of the "
            "timestamps, {form: pattern, pattern: …}, or write YYYY-MM-DD."
        )
    return times


def check_splits(table: RawTable, label_counts: list[list[int]], label: LabelStatistics | None) -> None:
    """Refuse splits that cannot be used; warn of those that can be used but not measured.

    Args:
        label_counts: negative and positive rows of each split, in the order of `SPLIT_NAMES`.
        label: of number labels, whose classes nobody counts.
    Raises:
        DataError: a split that the config asks for is empty, or train has one class, or one number for a label, or
            numbers that float32 hardly tells apart.
    """
    for name, (negative, positive) in zip(SPLIT_NAMES, label_counts, strict=True):
        what = f"the {name} split of data set {table.name!r}"
        if negative + positive == 0 and _is_wanted(table, name):
            raise DataError(
                f"{what} has no rows. Give more rows, or a larger share dataset.split.{name} "
                f"(method {table.split.method.value})."
            )
        if name == "train" and label is not None:
            _check_numbers(label, what)
        if table.only_positives or label is not None:
            continue
        if min(negative, positive) == 0 and name == "train":
            raise DataError(
                f"{what} has {positive} positive and {negative} negative rows; a model needs both. Check the label "
                "column, or split otherwise (sorted rows need shuffle or hash)."
            )
        if min(negative, positive) == 0:
            logger.warning("%s has %d positive and %d negative rows: its AUC is undefined", what, positive, negative)


def _check_numbers(label: LabelStatistics, what: str) -> None:
    """Refuse number labels of train that are all one, or that rounding to float32 moved by much of their spread."""
    step = float(np.spacing(np.float32(abs(label.mean))))
    if label.std < STEPS_OF_SPREAD * step and abs(label.mean) >= EXACT_INTEGERS:
        raise DataError(
            f"{what} has labels around {label.mean:,.0f}, where float32, which labels are kept in, goes in steps of "
            f"{step:g}: rounded to these, their standard deviation is {label.std:.3g}, so that rounding would count as "
            "error. Subtract a constant from the label column, or write it in another unit."
        )
    if not label.std > 0:
        raise DataError(
            f"{what} has the label {label.mean:g} on all of its {label.count} rows, so there is nothing to learn. "
            "Check the label column, or split otherwise (sorted rows need shuffle or hash)."
        )


def _is_wanted(table: RawTable, split: str) -> bool:
    shares = {"train": table.split.train, "validation": table.split.validation, "test": table.split.test}
    if table.split.method is SplitMethod.GIVEN:
        return split == "train" or any(file.split == split for file in table.files)
    return shares[split] > 0
