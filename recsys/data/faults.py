"""What is wrong with raw rows: the first fault is refused, or faulty rows are set aside up to a limit."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError

logger = logging.getLogger(__name__)

FAULT, LINE = "__fault__", "__line__"
"""Columns of a frame that holds damaged lines as empty rows: what is wrong with the line, null where it is sound; and
the line itself."""

REJECTED_FOLDER = "rejected"
REJECTED = {"file": pl.String, "row": pl.Int64, "column": pl.String, "value": pl.String, "reason": pl.String}
"""Columns of a file of rejected rows. `row` counts from 1 in its file, header not counted; a damaged line has no column
and its text for a value."""

SHARD = "shard"
VALUE_CHARACTERS = 500
REASONS_TOLD = 3


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a frame's rows come from, for error messages."""

    path: str = "raw rows"
    first_row: int = 0  # position of the frame's first row in that file, without header


ANYWHERE = Origin()


def check_present(columns: Sequence[str], names: Iterable[str], origin: Origin, wanted_by: str) -> None:
    """Refuse rows without a column that is asked for.

    Args:
        columns: what the rows have; those of this package, `__…__`, are not told.
        wanted_by: what asks: "the schema", or a section of the dataset config.
    Raises:
        DataError: naming what is missing and what is there.
    """
    missing = [name for name in names if name and name not in columns]
    if missing:
        there = [name for name in columns if not name.startswith("__")]
        raise DataError(
            f"{origin.path}: column(s) {missing} of {wanted_by} are missing; the file has {there}. Correct the names "
            "in the dataset config, or the file's header."
        )


def with_damaged(frame: pl.DataFrame, damaged: Mapping[int, tuple[str, str]]) -> pl.DataFrame:
    """The frame with the columns `FAULT` and `LINE`; `damaged` has (line, what is wrong with it) by row."""
    lines: list[str | None] = [None] * frame.height
    faults: list[str | None] = [None] * frame.height
    for row, (line, problem) in damaged.items():
        lines[row], faults[row] = line, problem
    return frame.with_columns(pl.Series(FAULT, faults, dtype=pl.String), pl.Series(LINE, lines, dtype=pl.String))


class Faults:
    """The faults of one frame: the first raises, or all are kept."""

    def __init__(self, origin: Origin, *, strict: bool) -> None:
        self.origin, self._strict = origin, strict
        self._found: list[pl.DataFrame] = []

    def note(self, column: pl.Series, bad: pl.Series, problem: str) -> None:
        """Say that rows where `bad` holds have an impossible value.

        Raises:
            DataError: there is one, and faults are not kept.
        """
        rows = bad.fill_null(False).arg_true()
        if not len(rows):
            return
        if self._strict:
            self.refuse(column, bad, problem)
        values = [_shown(column[row]) for row in rows.to_list()]
        found = {"at": rows.cast(pl.Int64), "value": pl.Series(values, dtype=pl.String)}
        self._found.append(pl.DataFrame(found).with_columns(column=pl.lit(column.name), reason=pl.lit(problem)))

    def refuse(self, column: pl.Series, bad: pl.Series, problem: str) -> None:
        """Raise for the first row where `bad` holds; for what is wrong with a column as a whole."""
        rows = bad.fill_null(False).arg_true()
        if len(rows):
            row = int(rows[0])
            value = repr(column[row].to_list() if isinstance(column[row], pl.Series) else column[row])
            shown = value if len(value) <= VALUE_CHARACTERS else f"{value[:VALUE_CHARACTERS]}…"
            raise DataError(
                f"{self.origin.path}, row {self.origin.first_row + row + 1} (from 1, header not counted), column "
                f"{column.name!r}: {shown} {problem}"
            )

    def note_damaged(self, frame: pl.DataFrame) -> None:
        """Note the damaged lines that a reader has let pass."""
        if FAULT in frame.columns:
            damaged = frame.with_row_index("at").filter(pl.col(FAULT).is_not_null())
            columns = (pl.col("at").cast(pl.Int64), pl.col(LINE).str.head(VALUE_CHARACTERS).alias("value"))
            self._found.append(damaged.select(*columns, pl.lit("").alias("column"), pl.col(FAULT).alias("reason")))

    def rejected(self) -> pl.DataFrame:
        """The faulty rows with their first fault, as `REJECTED` has it."""
        if not self._found:
            return pl.DataFrame(schema=REJECTED)
        first = pl.concat(self._found).unique("at", keep="first", maintain_order=True).sort("at")
        place = pl.col("at") + self.origin.first_row + 1
        return first.select(pl.lit(self.origin.path).alias("file"), place.alias("row"), "column", "value", "reason")

    def sound(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows without a fault; `frame` has all of them."""
        if not self._found:
            return frame
        faulty = pl.concat(self._found)["at"].unique()
        return frame.filter(~pl.int_range(frame.height, dtype=pl.Int64, eager=True).is_in(faulty.implode()))


def _shown(value: object) -> str | None:
    if value is None:
        return None
    return str(value.to_list() if isinstance(value, pl.Series) else value)[:VALUE_CHARACTERS]


class Rejected:
    """Rows that are set aside, in `rejected/<stem>-<shard>.parquet` of a dataset folder."""

    def __init__(
        self, folder: Path, *, num_rows: int, limit: float, done: Iterable[int] = (), stem: str = "part"
    ) -> None:
        """Take up to the share `limit` of `num_rows` rows; those of the shards `done` are there."""
        self._folder, self._num_rows, self._stem = folder / REJECTED_FOLDER, num_rows, stem
        self.limit = limit
        known = {shard: self._path(shard) for shard in done if self._path(shard).is_file()}
        self._parts = {shard: pl.read_parquet(path, glob=False) for shard, path in known.items()}

    @property
    def count(self) -> int:
        """Rows taken so far."""
        return sum(part.height for part in self._parts.values())

    def add(self, shard: int, rows: pl.DataFrame) -> None:
        """Take rows, as `Faults.rejected` gives them.

        Raises:
            DataError: there are too many; those found so far are written.
        """
        if rows.is_empty():
            return
        self._parts[shard] = pl.concat([*([self._parts[shard]] if shard in self._parts else []), rows])
        # Tolerance: 0.29 * 100 is 28.999999999999996.
        if self.count > self.limit * self._num_rows + 1e-6:
            self.write(shard)
            raise DataError(
                f"{self.count:,} of {self._num_rows:,} rows have faults so far, more than ingest.max_rejected="
                f"{self.limit:g} allows: {self._told()} {self._folder} lists them. Correct the rows or the schema, "
                "or allow more."
            )

    def of(self, shard: int) -> pl.DataFrame:
        """What was taken of a shard."""
        return self._parts.get(shard, pl.DataFrame(schema=REJECTED))

    def write(self, shard: int) -> None:
        """Write what was taken of a shard, if anything."""
        if shard in self._parts:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._parts[shard].write_parquet(self._path(shard), compression="zstd", statistics=False)

    def write_all(self) -> None:
        """Write what was taken of all shards."""
        for shard in self._parts:
            self.write(shard)

    def save(self, path: Path) -> None:
        """Write what was taken of all shards to one file, if anything."""
        parts = [part.with_columns(pl.lit(shard, pl.Int64).alias(SHARD)) for shard, part in self._parts.items()]
        if parts:
            path.parent.mkdir(exist_ok=True)
            pl.concat(parts).write_parquet(path)

    def load(self, path: Path) -> None:
        """Take what `save` wrote there, in place of what was taken."""
        saved = [pl.read_parquet(path, glob=False)] if path.is_file() else []
        self._parts = {
            int(shard): part
            for frame in saved
            for (shard,), part in frame.partition_by(SHARD, as_dict=True, include_key=False).items()
        }

    def log(self) -> None:
        """Say what was taken."""
        if self._parts:
            logger.warning("left out %d of %d rows: %s (%s)", self.count, self._num_rows, self._told(), self._folder)

    def _path(self, shard: int) -> Path:
        return self._folder / f"{self._stem}-{shard:05d}.parquet"

    def _told(self) -> str:
        return _told([part for _, part in sorted(self._parts.items())])


def _told(parts: Sequence[pl.DataFrame]) -> str:
    """The most frequent reasons, each with its number of rows and the first of them."""
    groups = (
        pl.concat(parts)
        .group_by("column", "reason", maintain_order=True)
        .agg(pl.len().alias("count"), pl.all().first())
    )
    most = groups.sort("count", descending=True, maintain_order=True)
    told = []
    for found in most.head(REASONS_TOLD).to_dicts():
        where = f"column {found['column']!r}: {found['value']!r}" if found["column"] else "the line"
        told.append(f"{found['count']:,} × like {found['file']}, row {found['row']}, {where}: {found['reason']}")
    if most.height > REASONS_TOLD:
        told.append(f"{most.height - REASONS_TOLD} other kinds")
    return "; ".join(told)
