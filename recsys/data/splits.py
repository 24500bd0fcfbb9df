"""Which split each raw row belongs to."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.data.dataset import SPLIT_NAMES, RawChunk, RawTable, Shard, SplitMethod
from recsys.data.raw import ROW
from recsys.ops.hashing import mix64, salt_for

logger = logging.getLogger(__name__)

DAY_FIRST = r"^\d\d?[./-]\d\d?[./-]\d\d"
NON_NEGATIVE = 0x7FFFFFFFFFFFFFFF
PART_BITS = 16
ROWS_AT_ONCE = 1 << 18

Assign = Callable[[RawChunk], Tensor]
"""Split of each row of a chunk: int8 (rows,), an index into `SPLIT_NAMES`."""


def split_assigner(table: RawTable, shards: Sequence[Shard], *, seed: int, chunk_rows: int, strict: bool) -> Assign:
    """The rule of `table.split` as a function; TIME reads its column of the whole table first, and holds it.

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
            return ((part >= first).to(torch.int8) + (part >= second)).to(torch.int8)

        return by_hash
    if method is SplitMethod.TIME:
        codes = _by_time(table, table.chunks(shards, chunk_rows, strict=strict), num_rows)
        return lambda chunk: codes[chunk.frame[ROW].to_torch()]
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


def _codes(order: Tensor, num_rows: int, first: int, second: int) -> Tensor:
    """Codes by position, int8: rows that `order`, int64, names from `first` are validation, from `second` on test."""
    codes = torch.zeros(num_rows, dtype=torch.int8)
    codes[order[first:second]] = 1
    codes[order[second:]] = 2
    return codes


def _number_of_cuts(values: Tensor, cuts: Sequence[int]) -> Tensor:
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
    parts = torch.searchsorted(ends, torch.tensor(ranks, dtype=torch.int64), right=True)
    inside: list[int] = []  # no tensors: small ones, kept, pin the memory of the large ones between them
    for hashes in _hashes(num_rows, salt):
        inside += hashes[torch.isin(_part(hashes), parts)].tolist()
    inside.sort()
    inside_before = torch.tensor([int(counts[parts[parts < part].unique()].sum()) for part in parts])
    before = torch.tensor(ranks) - (ends[parts] - counts[parts])
    return [inside[int(at)] for at in inside_before + before]


def _hashes(num_rows: int, salt: int) -> Iterator[Tensor]:
    """Of all rows, some at a time."""
    for start in range(0, num_rows, ROWS_AT_ONCE):
        yield _row_hash(torch.arange(start, min(start + ROWS_AT_ONCE, num_rows)), salt)


def _part(hashes: Tensor) -> Tensor:
    """Number of the part of all int64 numbers that each lies in, ascending."""
    part: Tensor = (hashes >> (64 - PART_BITS)) + 2 ** (PART_BITS - 1)
    return part


def _by_time(table: RawTable, chunks: Iterable[RawChunk], num_rows: int) -> Tensor:
    """Oldest rows first; rows of one time stay together, so the cuts move to where the next time begins.

    Raises:
        DataError: a time is missing or of another form than the others, or there are fewer times than splits.
    """
    name = table.split.column
    read = [chunk.frame.select(pl.col(name).alias("time"), ROW) for chunk in chunks]
    ranked = _sortable(pl.concat(read), table).sort("time", ROW)
    times = ranked["time"]
    runs = times.rle().struct.unnest()
    first, second = _nearest_cuts(runs["len"].cast(pl.Int64).cum_sum().to_list(), table)
    parts = times[:first], times[first:second], times[second:]
    shares = (
        f"{name} {len(part) / len(times):.1%} ({part[0]} … {part[-1]})"
        for name, part in zip(SPLIT_NAMES, parts, strict=True)
        if len(part)
    )
    logger.info("split by time, between two values of %r: %s", name, ", ".join(shares))
    return _codes(ranked[ROW].to_torch(), num_rows, first, second)


def _nearest_cuts(ends: list[int], table: RawTable) -> tuple[int, int]:
    """The cuts between times that lie nearest to the exact ones and leave no wanted split empty.

    Args:
        ends: rank after the last row of each time, ascending.
    """
    wanted = [share > 0 for share in (table.split.validation, table.split.test)]
    if len(ends) < 1 + sum(wanted):
        raise DataError(
            f"data set {table.name!r}: column {table.split.column!r} has {len(ends)} different value(s), and a split "
            f"by time never cuts through one, so {1 + sum(wanted)} splits need as many. Name a column of finer times, "
            "or choose another split method."
        )
    first, second = _exact_cuts(ends[-1], table)
    last = len(ends) - wanted[1]
    second_at = min(range(1 + wanted[0], last + 1), key=lambda i: abs(ends[i - 1] - second)) if wanted[1] else last
    choices = range(1, second_at) if wanted[0] else [second_at]
    first_at = min(choices, key=lambda i: abs(ends[i - 1] - first))
    return ends[first_at - 1], ends[second_at - 1]


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


def check_splits(table: RawTable, label_counts: list[list[int]]) -> None:
    """Refuse splits that cannot be used; warn of those that can be used but not measured.

    Args:
        label_counts: negative and positive rows of each split, in the order of `SPLIT_NAMES`.
    Raises:
        DataError: a split that the config asks for is empty, or train has one class.
    """
    for name, (negative, positive) in zip(SPLIT_NAMES, label_counts, strict=True):
        what = f"the {name} split of data set {table.name!r}"
        if negative + positive == 0 and _is_wanted(table, name):
            raise DataError(
                f"{what} has no rows. Give more rows, or a larger share dataset.split.{name} "
                f"(method {table.split.method.value})."
            )
        if table.only_positives:
            continue
        if min(negative, positive) == 0 and name == "train":
            raise DataError(
                f"{what} has {positive} positive and {negative} negative rows; a model needs both. Check the label "
                "column, or split otherwise (sorted rows need shuffle or hash)."
            )
        if min(negative, positive) == 0:
            logger.warning("%s has %d positive and %d negative rows: its AUC is undefined", what, positive, negative)


def _is_wanted(table: RawTable, split: str) -> bool:
    shares = {"train": table.split.train, "validation": table.split.validation, "test": table.split.test}
    if table.split.method is SplitMethod.GIVEN:
        return split == "train" or any(file.split == split for file in table.files)
    return shares[split] > 0
