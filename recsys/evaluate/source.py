"""Predictions as a file or frame that is read in parts, so that there may be more rows than memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError

ROWS_AT_ONCE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Scored rows in order, of which only `rows_at_once` are in memory at a time."""

    frame: pl.LazyFrame
    schema: pl.Schema
    num_rows: int
    rows_at_once: int = ROWS_AT_ONCE

    @classmethod
    def of(cls, frame: pl.DataFrame) -> "Predictions":
        """Predictions that are in memory."""
        return cls(frame=frame.lazy(), schema=frame.schema, num_rows=frame.height)

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Predictions in a Parquet file.

        Raises:
            DataError: it cannot be read.
        """
        try:
            frame = pl.scan_parquet(path)
            num_rows = int(frame.select(pl.len()).collect().item())
            return cls(frame=frame, schema=frame.collect_schema(), num_rows=num_rows)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{path}: not a readable Parquet file ({error}). Run evaluate again.") from error

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return self.schema.names()

    def chunks(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """These columns, in parts of at most `rows_at_once` rows, in order; one empty part where there are no rows."""
        for start in range(0, max(self.num_rows, 1), self.rows_at_once):
            yield self.frame.select(columns).slice(start, self.rows_at_once).collect()
