"""Training statistics of columns: built piece by piece, and merged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.core.labels import LabelKind, LabelStatistics
from recsys.core.manifest import CategoricalStatistics, NumericStatistics
from recsys.core.schema import MISSING_KEY, CategoricalFeature, NumericFeature, NumericTransform, Schema
from recsys.data.counting import COUNTS, Ranking, merged_counts
from recsys.data.encoder import LOG_TRANSFORMS
from recsys.ops.hashing import mix64

SAMPLE_ROWS = 1 << 18
SAMPLE = {"priority": pl.Int64, "value": pl.Float32}


class KeyCounter:
    """Exact counts of the keys of one vocabulary, in all columns that share it, over the rows of one shard."""

    def __init__(self, columns: Sequence[CategoricalFeature]) -> None:
        self._columns = {feature.name: feature for feature in columns}
        self._parts = [pl.DataFrame(schema=COUNTS).cast({"count": pl.get_index_type()})]
        self.max_lengths = {feature.name: 0 if feature.multi_valued else 1 for feature in columns}

    def update(self, column: str, keys: Tensor, lengths: Tensor | None) -> None:
        """Count keys, int64 (N,); of a multi-valued column with its lengths (B,), only those that are kept."""
        if lengths is not None and lengths.numel():
            limit, longest = self._columns[column].max_length, int(lengths.max())
            self.max_lengths[column] = max(self.max_lengths[column], longest)
            if longest > limit:
                starts = torch.cumsum(lengths, 0) - lengths
                position = torch.arange(keys.numel()) - torch.repeat_interleave(starts, lengths)
                keys = keys[position < limit]
        self._parts.append(pl.Series("key", keys.numpy()).value_counts(name="count"))

    def counts(self) -> pl.DataFrame:
        """`COUNTS`, by key."""
        return merged_counts(pl.concat(self._parts).lazy().cast(pl.Int64)).sort("key")


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
        self.merge(NumericMoments(self.feature, count, mean, float(((known - mean) ** 2).sum())))

    def merge(self, other: "NumericMoments") -> None:
        """Add the values that another one has seen."""
        total, delta = self.count + other.count, other.mean - self.mean
        if other.count:
            self.squares += other.squares + delta * delta * self.count * other.count / total
            self.mean += delta * other.count / total
        self.count = total
        self.num_missing += other.num_missing

    def finish(self) -> NumericStatistics:
        """Population mean and standard deviation."""
        std = math.sqrt(self.squares / self.count) if self.count else 0.0
        # A column without spread is only shifted: dividing by rounding noise would blow it up.
        flat = std <= 1e-6 * max(abs(self.mean), 1.0)
        return NumericStatistics(mean=self.mean, std=1.0 if flat else std, num_missing=self.num_missing)


def label_moments(schema: Schema, labels: Sequence[Tensor]) -> list[float]:
    """(Count, mean, sum of squared distances from it) of the number labels of one shard's training rows."""
    moments = _of_label(schema)
    moments.update(torch.cat([torch.empty(0), *labels]))
    return [moments.count, moments.mean, moments.squares]


def label_statistics(schema: Schema, shards: Sequence[Sequence[float]]) -> LabelStatistics | None:
    """Of what `label_moments` says of all shards; none of clicks."""
    if schema.label_kind is LabelKind.CLICK:
        return None
    moments = _of_label(schema)
    for count, mean, squares in shards:
        moments.merge(NumericMoments(moments.feature, int(count), mean, squares))
    std = math.sqrt(moments.squares / moments.count) if moments.count else 0.0
    # Equal labels may leave rounding noise of float64, far below what float32 labels could differ by.
    return LabelStatistics(count=moments.count, mean=moments.mean, std=0.0 if std <= 1e-9 * abs(moments.mean) else std)


def _of_label(schema: Schema) -> NumericMoments:
    return NumericMoments(NumericFeature(name=schema.label, transform=NumericTransform.IDENTITY))


class BucketSample:
    """A sample of one number in the training rows, for the bounds and counts of its quantile buckets.

    It is the `SAMPLE_ROWS` rows whose positions hash lowest: all rows while there are no more, else uniform; the rank
    of a bound is then right within 1 / sqrt(SAMPLE_ROWS), 0.2 %, of the rows (one standard deviation). It depends
    neither on the order nor on the pieces in which rows come.
    """

    def __init__(self, feature: CategoricalFeature) -> None:
        self._feature = feature
        self.sample = pl.DataFrame(schema=SAMPLE)
        self.num_known = self.num_missing = 0

    def update(self, rows: Tensor, values: Tensor) -> None:
        """Add numbers, float32 (B,), NaN is missing, of rows at positions int64 (B,)."""
        known = torch.isfinite(values)
        added = pl.DataFrame({"priority": mix64(rows[known]).numpy(), "value": values[known].numpy()}, schema=SAMPLE)
        self.merge(added, int(known.sum()), int((~known).sum()))

    def merge(self, sample: pl.DataFrame, num_known: int, num_missing: int) -> None:
        """Add the sample of so many other rows with a number and without one."""
        self.sample = pl.concat([self.sample, sample]).sort("priority").head(SAMPLE_ROWS)
        self.num_known += num_known
        self.num_missing += num_missing

    def finish(self) -> tuple[tuple[float, ...], pl.DataFrame, CategoricalStatistics]:
        """(Where buckets but the first begin; vocabulary and statistics, as `Ranking` gives them)."""
        values, wanted = self.sample["value"].sort().to_numpy(), self._feature.num_buckets
        bounds = np.unique(values[np.arange(1, wanted) * values.size // wanted]) if values.size else values
        bounds = bounds[bounds > values[0]] if values.size else bounds
        sampled = np.bincount(np.searchsorted(bounds, values, side="right"), minlength=bounds.size + 1)
        counts = np.maximum(np.rint(sampled * (self.num_known / max(values.size, 1))).astype(np.int64), 1)
        buckets = {"key": [*range(bounds.size + 1), MISSING_KEY], "count": [*counts.tolist(), self.num_missing]}
        found = pl.DataFrame(buckets, schema=COUNTS).filter(pl.col("count") > 0)
        ranking = Ranking([self._feature])
        ranking.update(found)
        vocabulary, statistics = ranking.finish({self._feature.name: 1})
        return tuple(bounds.tolist()), vocabulary, statistics[self._feature.name]
