"""Keys counted over all shards and ranked: exactly, in as much memory as asked for beside the vocabulary itself.

Every shard leaves its counts on disk, sorted by key. They are added up one range of keys after the other, so that only
the rows of a range are in memory; of these, keys that no vocabulary holds leave nothing but sums. There is no sketch.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from recsys.core.errors import DataError
from recsys.core.manifest import CategoricalStatistics
from recsys.core.schema import CategoricalFeature, IdEncoding

COUNTS = pl.Schema({"key": pl.Int64, "count": pl.Int64})
RUNS = pl.Schema({"len": pl.Int64, "value": pl.Int64})
ROW_BYTES = 80
"""Memory that adding up takes for each row that is read (75 measured on 8 M different keys, polars 2.1)."""


def merged_counts(counts: pl.LazyFrame) -> pl.DataFrame:
    """Counts added up by key, in no order."""
    return counts.group_by("key").agg(pl.col("count").sum()).collect(engine="streaming")


def counts_by_range(name: str, paths: Sequence[Path], *, num_rows: int, max_rows: int) -> Iterator[pl.DataFrame]:
    """`COUNTS` of one vocabulary over all files, in parts; every key is in one part.

    Args:
        name: of the vocabulary, the value of the files' column `of`.
        paths: files with the columns `of`, `key` and `count`, sorted by these; a key once in each.
        num_rows: of that vocabulary in all files.
        max_rows: read for a part, but for a few where files are more than half as many.
    """
    counts = pl.scan_parquet(list(paths), glob=False).filter(pl.col("of") == name).drop("of")
    if num_rows <= max_rows:
        yield merged_counts(counts)
        return
    ends = [None, *_cuts(name, paths, max_rows), None]
    for low, high in pairwise(ends):
        above = pl.lit(True) if low is None else pl.col("key") >= low
        below = pl.lit(True) if high is None else pl.col("key") < high
        yield merged_counts(counts.filter(above & below))


def _cuts(name: str, paths: Sequence[Path], max_rows: int) -> list[int]:
    """Keys where ranges but the first begin.

    Of every file each `step`-th key stands for as many rows: between two cuts lie max_rows / 2 by these, and at most
    `step` more of each file in truth.
    """
    step = max(1, max_rows // (2 * len(paths)))
    files = (pl.scan_parquet(path, glob=False).filter(pl.col("of") == name).select("key") for path in paths)
    sampled = pl.concat([file.collect()["key"].gather_every(step) for file in files]).sort()
    between = max(1, max_rows // 2 // step)
    return sampled.gather_every(between, between).unique(maintain_order=True).to_list()


class Ranking:
    """The vocabulary of some columns, from counts that come in parts; every key in one of them."""

    def __init__(self, columns: Sequence[CategoricalFeature]) -> None:
        """Rank the keys of columns that share a vocabulary; the first says how rare a key may be, and how many."""
        self._columns, self._owner = columns, columns[0]
        self._hashed = self._owner.encoding is IdEncoding.HASH
        self._kept = pl.DataFrame(schema=COUNTS)
        self._waiting: list[pl.DataFrame] = []
        self._runs = pl.DataFrame(schema=RUNS)  # of hashed keys, in no order: how many occur so often
        self._num_keys = self._total = self._most = 0

    def update(self, counts: pl.DataFrame) -> None:
        """Add `COUNTS` of training rows."""
        if counts.is_empty():
            return
        self._num_keys += counts.height
        self._total += int(counts["count"].sum())
        self._most = max(self._most, int(counts["count"].to_numpy().max()))
        if self._hashed:
            found = counts["count"].value_counts(name="len").select(pl.col("len").cast(pl.Int64), value="count")
            self._runs = pl.concat([self._runs, found]).group_by("value").agg(pl.col("len").sum()).select(*RUNS)
            return
        self._waiting.append(counts.filter(pl.col("count") >= self._owner.min_count))
        if self._owner.max_size and sum(part.height for part in self._waiting) > self._owner.max_size:
            self._rank()

    def _rank(self) -> None:
        ranked = pl.concat([self._kept, *self._waiting]).sort("count", "key", descending=[True, False])
        self._kept, self._waiting = ranked.head(self._owner.max_size or ranked.height), []

    def finish(self, max_lengths: Mapping[str, int]) -> tuple[pl.DataFrame, dict[str, CategoricalStatistics]]:
        """The vocabulary (`COUNTS`, most frequent first, ties by key; of hashed keys none) and columns' statistics.

        Args:
            max_lengths: longest row by column.
        Raises:
            DataError: no key is frequent enough.
        """
        self._rank()
        owner, kept = self._owner, self._kept
        if kept.is_empty() and not (self._hashed and self._num_keys):
            raise DataError(
                f"column {owner.name!r}: its vocabulary is empty, because no key occurs min_count={owner.min_count} "
                f"times in train (the most frequent one occurs {self._most} times). Lower min_count, or remove the "
                "feature."
            )
        oov_count = 0 if self._hashed else self._total - int(kept["count"].sum())
        runs = self._runs.sort("value", descending=True)
        if not self._hashed:
            behind = pl.DataFrame({"len": [owner.num_oov - 1], "value": [oov_count // owner.num_oov]}, schema=RUNS)
            runs = pl.concat([kept["count"].rle().struct.unnest().select(pl.all().cast(pl.Int64)), behind])
        octaves = octave_counts(runs.filter(pl.col("len") > 0))
        statistics = {
            feature.name: CategoricalStatistics(
                num_embeddings=None if self._hashed else kept.height + owner.num_oov,
                num_keys=self._num_keys,
                oov_count=oov_count,
                octave_counts=octaves,
                max_length=max_lengths[feature.name],
            )
            for feature in self._columns
        }
        return kept, statistics


def octave_counts(runs: pl.DataFrame) -> tuple[int, ...]:
    """How often the ids 1, 2, … occur, by octave: entry k adds up ids in [2**k, 2**(k+1)).

    Args:
        runs: `RUNS`: each of the next `len` ids occurs `value` times.
    """
    lengths, values = runs["len"].to_numpy(), runs["value"].to_numpy()
    ends, sums = lengths.cumsum(), (lengths * values).cumsum()
    last = int(ends[-1])
    edges = np.array([*(2**k - 1 for k in range(last.bit_length())), last], dtype=np.int64)
    at = np.searchsorted(ends, edges)
    return tuple(np.diff(sums[at] - (ends[at] - edges) * values[at]).tolist())
