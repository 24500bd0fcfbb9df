"""One feature of encoded rows, counted in parts: where its values lie, and what it says about the label alone."""

from dataclasses import dataclass, field
from typing import Protocol

import polars as pl
import torch
from torch import Tensor

from recsys.core.manifest import Manifest
from recsys.core.schema import CategoricalFeature, IdEncoding
from recsys.evaluate.alone import Alone, alone_of
from recsys.metrics import MetricValue

NUM_SINGLE_IDS = 64
"""The most frequent ids have a bin each; the others one for each octave."""
NUM_ID_BINS = NUM_SINGLE_IDS + 64
NUM_QUANTILES = 10
MAX_RATES = 1 << 20
"""Ids whose mean label is counted apart, at 16 bytes each; rarer ones count together."""


class Column(Protocol):
    """Counts of one feature over the rows of train and of test."""

    name: str

    def add_train(self, values: pl.Series, labels: Tensor) -> None:
        """Count training rows."""

    def add_test(self, values: pl.Series, labels: Tensor) -> None:
        """Count test rows, when all training rows have been counted."""

    def bins(self) -> tuple[Tensor, Tensor]:
        """(Training rows, test rows) by bin, int64 (B,)."""

    def unseen(self) -> tuple[MetricValue, MetricValue]:
        """Share of look-ups of train and of test whose id is out of vocabulary."""

    def alone(self) -> MetricValue:
        """AUC, or correlation with number labels, on test rows of the feature alone, as far as training rows tell what
        it means.
        """


class NumericColumn:
    """A number: deciles of train, and the number itself as score."""

    def __init__(self, name: str, sample: Tensor, alone: Alone) -> None:
        """`sample`: values (K,) of training rows, from all over them, for the deciles; `alone`: counted by nobody."""
        self.name, self._alone = name, alone
        shares = torch.arange(1, NUM_QUANTILES) * sample.numel() // NUM_QUANTILES
        self._edges = torch.unique(sample.double().sort().values[shares]) if sample.numel() else torch.empty(0).double()
        size = self._edges.numel() + 1
        self._train, self._test = (torch.zeros(size, dtype=torch.int64) for _ in range(2))

    def add_train(self, values: pl.Series, labels: Tensor) -> None:
        """Count training rows."""
        self._train += self._binned(_tensor(values))

    def add_test(self, values: pl.Series, labels: Tensor) -> None:
        """Count test rows."""
        numbers = _tensor(values)
        self._test += self._binned(numbers)
        self._alone.add(labels, numbers)

    def bins(self) -> tuple[Tensor, Tensor]:
        """(Training rows, test rows) between deciles."""
        return self._train, self._test

    def unseen(self) -> tuple[MetricValue, MetricValue]:
        """Numbers have no vocabulary."""
        nothing = MetricValue.undefined("a number has no vocabulary")
        return nothing, nothing

    def alone(self) -> MetricValue:
        """Of the number, or of its negative, whichever is better."""
        return self._alone.found(signed=False)

    def _binned(self, numbers: Tensor) -> Tensor:
        bins = torch.bucketize(numbers.double(), self._edges)
        return torch.bincount(bins, minlength=self._edges.numel() + 1)


@dataclass(eq=False)
class IdColumn:
    """Ids, one or several a row: bins by rank of frequency, and the mean label of the id in train as score."""

    name: str
    hashed: bool
    multi_valued: bool
    num_rates: int
    _alone: Alone
    _train: Tensor = field(default_factory=lambda: torch.zeros(NUM_ID_BINS, dtype=torch.int64))
    _test: Tensor = field(default_factory=lambda: torch.zeros(NUM_ID_BINS, dtype=torch.int64))
    _labels: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    _lookups: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    @classmethod
    def of(cls, manifest: Manifest, feature: CategoricalFeature) -> "IdColumn":
        """Nothing counted yet."""
        hashed = feature.encoding is IdEncoding.HASH
        num_rates = min(manifest.categorical[feature.name].num_embeddings or MAX_RATES, MAX_RATES)
        column = cls(feature.name, hashed, feature.multi_valued, num_rates, alone_of(manifest))
        column._labels, column._lookups = (torch.zeros(num_rates, dtype=torch.float64) for _ in range(2))
        return column

    def add_train(self, values: pl.Series, labels: Tensor) -> None:
        """Count training rows."""
        ids, rows = self._flat(values)
        self._train += torch.bincount(self._bin(ids), minlength=NUM_ID_BINS)
        place = self._place(ids)
        self._lookups.index_add_(0, place, torch.ones(place.numel(), dtype=torch.float64))
        self._labels.index_add_(0, place, labels[rows].double())

    def add_test(self, values: pl.Series, labels: Tensor) -> None:
        """Count test rows."""
        ids, rows = self._flat(values)
        self._test += torch.bincount(self._bin(ids), minlength=NUM_ID_BINS)
        base = float(self._labels.sum() / self._lookups.sum().clamp(min=1))
        rates = (self._labels + base) / (self._lookups + 1)  # an id that train lacks has the mean of all
        sums, lengths = (torch.zeros(labels.numel(), dtype=torch.float64) for _ in range(2))
        sums.index_add_(0, rows, rates[self._place(ids)])
        lengths.index_add_(0, rows, torch.ones(rows.numel(), dtype=torch.float64))
        scores = torch.where(lengths > 0, sums / lengths.clamp(min=1), base)
        self._alone.add(labels, scores)

    def bins(self) -> tuple[Tensor, Tensor]:
        """(Training look-ups, test look-ups) by rank of the id."""
        return self._train, self._test

    def unseen(self) -> tuple[MetricValue, MetricValue]:
        """Share of id 0 among the look-ups."""
        if self.hashed:
            nothing = MetricValue.undefined("hashed ids have no vocabulary")
            return nothing, nothing
        train, test = (_share(int(counts[0]), int(counts.sum())) for counts in (self._train, self._test))
        return train, test

    def alone(self) -> MetricValue:
        """Of the mean label that the row's ids have in train, averaged over them."""
        return self._alone.found(signed=True)

    def _flat(self, values: pl.Series) -> tuple[Tensor, Tensor]:
        """(Ids int64 (M,), row of each)."""
        rows = torch.arange(len(values))
        if not self.multi_valued:
            return _tensor(values), rows
        lengths = _tensor(values.list.len().cast(pl.Int64))
        return _tensor(values.explode().drop_nulls()), torch.repeat_interleave(rows, lengths)

    def _bin(self, ids: Tensor) -> Tensor:
        if self.hashed:
            return torch.remainder(ids, NUM_SINGLE_IDS)
        octave = torch.frexp(ids.double()).exponent.long() - 1  # exact, unlike a logarithm
        first = NUM_SINGLE_IDS.bit_length() - 1
        return torch.where(ids < NUM_SINGLE_IDS, ids, NUM_SINGLE_IDS + octave - first)

    def _place(self, ids: Tensor) -> Tensor:
        return torch.remainder(ids, self.num_rates) if self.hashed else ids.clamp(max=self.num_rates - 1)


def _tensor(values: pl.Series) -> Tensor:
    return torch.from_numpy(values.to_numpy(writable=True))


def _share(part: int, whole: int) -> MetricValue:
    return MetricValue.of(part / whole) if whole else MetricValue.undefined("there are no look-ups")
