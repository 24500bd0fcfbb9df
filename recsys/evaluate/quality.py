"""What an ingested data set is like: vocabularies, missing and unseen values, drift between splits, label rate."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from recsys.core.labels import LABEL, LabelKind
from recsys.core.manifest import Manifest
from recsys.core.schema import MISSING_KEY, CategoricalFeature, IdEncoding
from recsys.metrics import MetricValue, population_stability_index

Read = Callable[[str, Sequence[str]], Iterator[pl.DataFrame]]
"""(split, columns) -> its rows in parts."""

SPLITS = ("train", "validation", "test")
ROW = "__row__"
NUM_SINGLE, NUM_BINS, NUM_STEPS, NUM_HEAVY = 64, 128, 20, 5
SAMPLE_ROWS = 1 << 17


@dataclass(frozen=True, kw_only=True)
class FeatureQuality:
    """One feature. Shares are of look-ups (rows, for a number), by split; undefined ones are left out."""

    name: str
    kind: str
    num_ids: int | None  # None: hashed, or a number
    num_keys: int | None  # different values of train; None: a number
    values_a_row: float  # of train
    missing: dict[str, float]
    unseen: dict[str, float]  # out of vocabulary
    drift: dict[str, float]  # PSI from train to that split
    heavy: tuple[tuple[str, float], ...]  # most frequent values of train, with their shares
    edges: tuple[float, ...]  # of a number's histogram, as models read it
    shares: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """All that the page shows."""

    dataset: str
    num_rejected: int
    rows: dict[str, int]
    positive: dict[str, float]  # share of rows; of number labels their mean
    label_steps: tuple[tuple[int, int, float], ...]  # (first row, rows, mean label) of equal steps of position
    label_kind: LabelKind
    features: tuple[FeatureQuality, ...]
    method_bytes: dict[str, int | None]  # serving bytes of each method at its budget; None: refused


def assess(
    manifest: Manifest, read: Read, heavy: Mapping[str, Sequence[tuple[int, str]]], method_bytes: dict[str, int | None]
) -> Quality:
    """Look at all rows of all splits, once; of train twice where there are numbers.

    Args:
        manifest: of the data set.
        read: gives its encoded rows.
        heavy: by feature with a vocabulary, ids and what they stand for: the most frequent ones, and -1 if there is
            none; the id of missing values is told by the text "".
        method_bytes: passed on.
    Raises:
        DataError: a file is unreadable.
    """
    schema = manifest.schema
    split_names = [name for name in SPLITS if manifest.splits[name].num_rows]
    counters = [_Numbers(name, found) for name, found in _edges(manifest, read).items()]
    ids = [_Ids(feature, heavy.get(feature.name, ())) for feature in schema.categorical]
    everything: list[_Numbers | _Ids] = [*counters, *ids]
    num_rows = _num_positions(read, split_names)
    steps, sums = torch.zeros(NUM_STEPS, 2, dtype=torch.float64), dict.fromkeys(split_names, 0.0)
    for split in split_names:
        for frame in read(split, [ROW, LABEL, *(each.name for each in everything)]):
            at = frame[ROW].to_torch() * NUM_STEPS // num_rows
            labels = frame[LABEL].to_torch().double()
            steps.index_add_(0, at, torch.stack([torch.ones_like(labels), labels], dim=1))
            sums[split] += float(labels.sum())
            for each in everything:
                each.add(split, frame[each.name])
    train_rows = manifest.splits["train"].num_rows
    numbers = (each.found(manifest.numeric[each.name].num_missing / train_rows) for each in counters)
    return Quality(
        dataset=manifest.dataset,
        num_rejected=manifest.num_rejected,
        rows={name: split.num_rows for name, split in manifest.splits.items()},
        positive={name: total / manifest.splits[name].num_rows for name, total in sums.items()},
        label_kind=schema.label_kind,
        label_steps=_label_steps(steps, num_rows),
        features=(*numbers, *(each.found(manifest, train_rows) for each in ids)),
        method_bytes=method_bytes,
    )


def _num_positions(read: Read, splits: Sequence[str]) -> int:
    """One more than the last position of a row in the input."""
    return 1 + max(int(frame[ROW].to_torch().max()) for split in splits for frame in read(split, [ROW]))


def _label_steps(steps: Tensor, num_rows: int) -> tuple[tuple[int, int, float], ...]:
    counted = enumerate(steps.tolist())
    return tuple((i * num_rows // NUM_STEPS, int(n), positive / n) for i, (n, positive) in counted if n)


def _edges(manifest: Manifest, read: Read) -> dict[str, Tensor]:
    """Edges of histograms: equal steps between the 0.5 % and 99.5 % quantiles of train."""
    names = [feature.name for feature in manifest.schema.numeric]
    if not names:
        return {}
    step = -(-manifest.splits["train"].num_rows // SAMPLE_ROWS)
    sample = pl.concat([frame.gather_every(step) for frame in read("train", names)])
    edges = {}
    for name in names:
        values = sample[name].to_torch().double()
        low, high = torch.quantile(values, torch.tensor([0.005, 0.995]).double()).tolist()
        edges[name] = torch.linspace(low, high if high > low else low + 1, NUM_STEPS + 1, dtype=torch.float64)
    return edges


def _drift(bins: Mapping[str, Tensor]) -> dict[str, float]:
    found: dict[str, MetricValue] = {
        split: population_stability_index(bins["train"], other).index
        for split, other in bins.items()
        if split != "train"
    }
    return {split: index.value for split, index in found.items() if index.value is not None}


class _Numbers:
    def __init__(self, name: str, edges: Tensor) -> None:
        self.name, self._edges = name, edges
        self._bins: dict[str, Tensor] = {}

    def add(self, split: str, values: pl.Series) -> None:
        at = torch.bucketize(values.to_torch().double(), self._edges[1:-1])
        self._bins[split] = self._bins.get(split, torch.zeros(NUM_STEPS)) + torch.bincount(at, minlength=NUM_STEPS)

    def found(self, missing: float) -> FeatureQuality:
        train = self._bins["train"]
        return FeatureQuality(
            name=self.name,
            kind="number",
            num_ids=None,
            num_keys=None,
            values_a_row=1.0,
            missing={"train": missing},
            unseen={},
            drift=_drift(self._bins),
            heavy=(),
            edges=tuple(self._edges.tolist()),
            shares=tuple((train / train.sum()).tolist()),
        )


class _Ids:
    def __init__(self, feature: CategoricalFeature, heavy: Sequence[tuple[int, str]]) -> None:
        self.name, self._feature = feature.name, feature
        self._heavy = dict(heavy)
        hashed = feature.encoding is IdEncoding.HASH
        self._missing_id = MISSING_KEY if hashed else next((i for i, value in heavy if value == ""), -1)
        self._bins: dict[str, Tensor] = {}
        self._missing: dict[str, int] = {}
        self._heavy_counts = dict.fromkeys(self._heavy, 0)

    def add(self, split: str, values: pl.Series) -> None:
        ids = (values.explode().drop_nulls() if self._feature.multi_valued else values).to_torch()
        self._missing[split] = self._missing.get(split, 0) + int((ids == self._missing_id).sum())
        octave = torch.log2(ids.clamp(min=1).double()).long()
        place = torch.where((ids >= 0) & (ids < NUM_SINGLE), ids, NUM_SINGLE + torch.where(ids < 0, 63, octave))
        self._bins[split] = self._bins.get(split, torch.zeros(NUM_BINS)) + torch.bincount(place, minlength=NUM_BINS)
        if split == "train":
            for i in self._heavy_counts:
                self._heavy_counts[i] += int((ids == i).sum())

    def found(self, manifest: Manifest, train_rows: int) -> FeatureQuality:
        known, feature = manifest.categorical[self.name], self._feature
        totals = {split: max(float(bins.sum()), 1.0) for split, bins in self._bins.items()}
        hashed = feature.encoding is IdEncoding.HASH
        most = sorted(self._heavy_counts.items(), key=lambda each: -each[1])[:NUM_HEAVY]
        return FeatureQuality(
            name=self.name,
            kind=feature.derive.value if feature.derive.value != "none" else feature.key_type.value,
            num_ids=known.num_embeddings,
            num_keys=known.num_keys,
            values_a_row=totals["train"] / train_rows,
            missing={split: self._missing[split] / total for split, total in totals.items()},
            unseen={} if hashed else {split: float(self._bins[split][0]) / total for split, total in totals.items()},
            drift=_drift(self._bins),
            heavy=tuple((self._heavy[i], count / totals["train"]) for i, count in most if count),
            edges=(),
            shares=(),
        )
