"""Equal rows: of test in train, and within each, told apart by 64-bit hashes of all features."""

from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from recsys.metrics import MetricValue

SEEDS = 0, 1  # of features alone, of features and label


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Rows that occur before. Of a hundred million, two different ones share a hash with a chance of .0003."""

    test_in_train: MetricValue  # share of test rows whose features equal those of some training row
    test_in_train_with_label: MetricValue  # and whose label does, too
    test_duplicates: MetricValue  # share of test rows that repeat an earlier one, label included
    train_duplicates: MetricValue


def row_hashes(frame: pl.DataFrame, *, seed: int) -> Tensor:
    """One int64 (N,) per row of the frame, equal for equal rows."""
    return torch.from_numpy(frame.hash_rows(seed=seed).reinterpret(signed=True).to_numpy(writable=True))


class HashedRows:
    """Hashes of the rows of test, against which those of train are held as they come."""

    def __init__(self, hashes: Tensor) -> None:
        self._values, self._counts = torch.unique(hashes, return_counts=True)
        self._found = torch.zeros(self._values.numel(), dtype=torch.bool)

    def meet(self, hashes: Tensor) -> None:
        """Mark those that are among hashes int64 (N,) of training rows."""
        if self._values.numel():
            place = torch.searchsorted(self._values, hashes).clamp(max=self._values.numel() - 1)
            self._found[place[self._values[place] == hashes]] = True

    @property
    def met_share(self) -> MetricValue:
        """Share of the rows whose hash was met."""
        return _share(int(self._counts[self._found].sum()), int(self._counts.sum()))

    @property
    def repeated_share(self) -> MetricValue:
        """Share of the rows that repeat another."""
        total = int(self._counts.sum())
        return _share(total - self._values.numel(), total)


def _share(part: int, whole: int) -> MetricValue:
    return MetricValue.of(part / whole) if whole else MetricValue.undefined("there are no rows")
