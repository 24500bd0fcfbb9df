"""Training statistics of columns: built chunk by chunk, in any number of rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.core.manifest import CategoricalStatistics, NumericStatistics
from recsys.core.schema import CategoricalFeature, IdEncoding, NumericFeature
from recsys.data.encoder import LOG_TRANSFORMS

MERGE_ROWS = 1 << 20


class KeyCounter:
    """Exact counts of the keys of one vocabulary, in all columns that share it."""

    def __init__(self, columns: Sequence[CategoricalFeature]) -> None:
        """Start counting; the first of `columns` says how rare a key may be."""
        self._columns = {feature.name: feature for feature in columns}
        self._owner = columns[0]
        self._parts: list[pl.DataFrame] = []
        self._max_lengths = {feature.name: 0 if feature.multi_valued else 1 for feature in columns}

    def update(self, column: str, keys: Tensor, lengths: Tensor | None) -> None:
        """Count keys, int64 (N,); of a multi-valued column with its lengths (B,), only those that are kept."""
        if lengths is not None and lengths.numel():
            limit, longest = self._columns[column].max_length, int(lengths.max())
            self._max_lengths[column] = max(self._max_lengths[column], longest)
            if longest > limit:
                starts = torch.cumsum(lengths, 0) - lengths
                position = torch.arange(keys.numel()) - torch.repeat_interleave(starts, lengths)
                keys = keys[position < limit]
        self._parts.append(pl.Series("key", keys.numpy()).value_counts(name="count").cast(pl.Int64))
        if sum(part.height for part in self._parts) > MERGE_ROWS + 2 * self._parts[0].height:
            self._parts = [self._merged()]

    def _merged(self) -> pl.DataFrame:
        return pl.concat(self._parts).group_by("key").agg(pl.col("count").sum())

    def finish(self) -> tuple[pl.DataFrame, dict[str, CategoricalStatistics]]:
        """The vocabulary (columns `key` and `count`, most frequent first, ties by key) and the columns' statistics.

        Raises:
            DataError: no key is frequent enough.
        """
        name, min_count = self._owner.name, self._owner.min_count
        counts = self._merged().sort("count", "key", descending=[True, False])
        hashed = self._owner.encoding is IdEncoding.HASH
        kept = counts if hashed else counts.filter(pl.col("count") >= min_count)
        if kept.is_empty():
            most = counts["count"][0] if counts.height else 0
            raise DataError(
                f"column {name!r}: its vocabulary is empty, because no key occurs min_count={min_count} times in train "
                f"(the most frequent one occurs {most} times). Lower min_count, or remove the feature."
            )
        statistics = {
            column: CategoricalStatistics(
                num_embeddings=None if hashed else kept.height + 1,
                num_keys=counts.height,
                oov_count=int(counts["count"].sum()) - int(kept["count"].sum()),
                octave_counts=octave_counts(kept["count"]),
                max_length=longest,
            )
            for column, longest in self._max_lengths.items()
        }
        return kept, statistics


def octave_counts(counts: pl.Series) -> tuple[int, ...]:
    """Sum of `counts`, which belong to ids 1, 2, …, by octave: entry k adds up ids in [2**k, 2**(k+1))."""
    octaves = range(len(counts).bit_length())
    return tuple(int(counts.slice(2**k - 1, 2**k).sum()) for k in octaves)


@dataclass
class NumericMoments:
    """Running mean and variance of one numeric column after its log, without missing values.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    feature: NumericFeature
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared distances from the mean
    num_missing: int = 0

    def update(self, values: Tensor) -> None:
        """Add values, float32 (B,), NaN is missing."""
        # NumPy, because torch adds up in as many parts as it has threads, and the last digits would tell how many.
        known = values[~torch.isnan(values)].numpy().astype(np.float64)
        self.num_missing += values.numel() - known.size
        if not known.size:
            return
        if self.feature.transform in LOG_TRANSFORMS:
            known = np.sign(known) * np.log1p(np.abs(known))
        count, mean = known.size, float(known.mean())
        total, delta = self.count + count, mean - self.mean
        self.squares += float(((known - mean) ** 2).sum()) + delta * delta * self.count * count / total
        self.mean += delta * count / total
        self.count = total

    def finish(self) -> NumericStatistics:
        """Population mean and standard deviation."""
        std = math.sqrt(self.squares / self.count) if self.count else 0.0
        # A column without spread is only shifted: dividing by rounding noise would blow it up.
        flat = std <= 1e-6 * max(abs(self.mean), 1.0)
        return NumericStatistics(mean=self.mean, std=1.0 if flat else std, num_missing=self.num_missing)
