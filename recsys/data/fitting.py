"""What encoding needs to know of the training rows: found shard by shard, kept on disk, and merged."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from recsys.core.labels import LabelKind, LabelStatistics
from recsys.core.manifest import CategoricalStatistics, NumericStatistics
from recsys.core.names import LENGTHS_SUFFIX
from recsys.core.schema import CategoricalFeature, Schema, is_bucketed
from recsys.data.counting import ROW_BYTES, Ranking, counts_by_range
from recsys.data.dataset import SPLIT_NAMES, RawChunk
from recsys.data.derive import Sources
from recsys.data.encoder import vocabulary_path
from recsys.data.raw import ROW, tensors_of
from recsys.data.state import put_json
from recsys.data.statistics import BucketSample, KeyCounter, NumericMoments, label_moments, label_statistics

NUM_SPLITS = len(SPLIT_NAMES)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Statistics of the training rows of all shards, and labels of all rows."""

    numeric: dict[str, NumericStatistics]
    categorical: dict[str, CategoricalStatistics]
    keys: dict[str, Tensor]  # int64 (V,), of each vocabulary, most frequent first; of hashed columns none
    bounds: dict[str, tuple[float, ...]]
    label_counts: list[list[int]]  # negative and positive rows of each split; numbers count as negative
    label: LabelStatistics | None  # of number labels
    unknown: Counter[str]  # as `unknown_keys` counts

    def bound_tensors(self) -> dict[str, Tensor]:
        """The bounds of quantile buckets as tensors."""
        return {name: torch.tensor(found, dtype=torch.float32) for name, found in self.bounds.items()}


class ShardFit:
    """Statistics of the rows of one shard."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        owned = schema.vocabularies
        self._sources = Sources(schema, {})
        self._counters = {name: KeyCounter(found) for name, found in owned.items() if not is_bucketed(found[0])}
        self._samples = {name: BucketSample(found[0]) for name, found in owned.items() if is_bucketed(found[0])}
        # Kept till the end: moments of parts, merged, would tell where one chunk ended and the next began.
        self._numbers: list[list[Tensor]] = [[] for _ in schema.numeric]
        self._labels = torch.zeros(NUM_SPLITS, 2, dtype=torch.int64)
        self._train_labels: list[Tensor] = []  # where they are numbers; kept like those of features
        self._unknown: Counter[str] = Counter()

    def update(self, chunk: RawChunk, codes: Tensor) -> None:
        """Add rows; `codes`, int8 (B,), are their splits, 0 for train."""
        frame = chunk.frame
        self._unknown.update(chunk.unknown)
        labels, clicks = frame[self._schema.label].to_torch(), self._schema.label_kind is LabelKind.CLICK
        classes = labels.long() if clicks else torch.zeros_like(codes, dtype=torch.int64)
        pairs = torch.bincount(codes.long() * 2 + classes, minlength=self._labels.numel())
        self._labels += pairs.view_as(self._labels)
        if not clicks:
            self._train_labels.append(labels[codes == 0])
        frame = frame.filter(pl.Series((codes == 0).numpy()))
        tensors = tensors_of(frame, self._schema)
        for i, numbers in enumerate(self._numbers):
            numbers.append(self._sources.numbers(tensors, i))
        for i, feature in enumerate(self._schema.categorical):
            if is_bucketed(feature):
                self._samples[feature.name].update(frame[ROW].to_torch(), tensors[feature.sources[0]])
            else:
                counter = self._counters[feature.vocabulary or feature.name]
                counter.update(feature.name, self._sources(tensors, i), tensors.get(feature.name + LENGTHS_SUFFIX))

    def save(self, stem: Path) -> None:
        """Write `<stem>.counts.parquet`, `<stem>.sample.parquet`, and when all is there `<stem>.json`."""
        counts = {name: counter.counts() for name, counter in self._counters.items()}
        _save_each(counts, _counts_path(stem))
        _save_each({name: sample.sample for name, sample in self._samples.items()}, _sample_path(stem))
        lengths = {column: n for counter in self._counters.values() for column, n in counter.max_lengths.items()}
        moments = {}
        for feature, numbers in zip(self._schema.numeric, self._numbers, strict=True):
            found = NumericMoments(feature)
            found.update(torch.cat(numbers))
            moments[feature.name] = [found.count, found.mean, found.squares, found.num_missing]
        sampled = {name: [sample.num_known, sample.num_missing] for name, sample in self._samples.items()}
        known = {"labels": self._labels.tolist(), "max_lengths": lengths, "moments": moments, "sampled": sampled}
        known |= {"label": label_moments(self._schema, self._train_labels)}
        known |= {"num_counts": {name: found.height for name, found in counts.items()}, "unknown": self._unknown}
        put_json(stem.with_suffix(".json"), known)


def merged_fit(schema: Schema, stems: Iterable[Path], folder: Path, *, memory_bytes: int) -> Fit:
    """The statistics of all shards; writes the vocabularies.

    Args:
        stems: of what each shard has found.
        folder: of the data set.
        memory_bytes: that adding up counts may take, beside the vocabularies themselves.
    Raises:
        DataError: no key of a vocabulary is frequent enough.
    """
    stems = list(stems)
    found = [json.loads(stem.with_suffix(".json").read_text()) for stem in stems]
    fit = Fit(
        numeric={},
        categorical={},
        keys={},
        bounds={},
        label_counts=torch.tensor([each["labels"] for each in found]).sum(0).tolist(),
        label=label_statistics(schema, [each["label"] for each in found]),
        unknown=sum((Counter(each["unknown"]) for each in found), Counter()),
    )
    for feature in schema.numeric:
        moments = NumericMoments(feature)
        for each in found:
            moments.merge(NumericMoments(feature, *each["moments"][feature.name]))
        fit.numeric[feature.name] = moments.finish()
    for name, columns in schema.vocabularies.items():
        if is_bucketed(columns[0]):
            sample = BucketSample(columns[0])
            for stem, each in zip(stems, found, strict=True):
                sample.merge(_saved(name, [_sample_path(stem)]).collect(), *each["sampled"][name])
            fit.bounds[name], vocabulary, fit.categorical[name] = sample.finish()
        else:
            vocabulary, statistics = _ranked(columns, stems, found, memory_bytes)
            fit.categorical.update(statistics)
        if fit.categorical[name].num_embeddings is not None:
            fit.keys[name] = _written(vocabulary, vocabulary_path(folder, name))
    return fit


def _ranked(
    columns: Sequence[CategoricalFeature], stems: Sequence[Path], found: Sequence[dict[str, Any]], memory_bytes: int
) -> tuple[pl.DataFrame, dict[str, CategoricalStatistics]]:
    """What `Ranking` makes of the shards' counts; `found` is what their `<stem>.json` say."""
    name, ranking = columns[0].name, Ranking(columns)
    counts = counts_by_range(
        name,
        [_counts_path(stem) for stem in stems],
        num_rows=sum(each["num_counts"][name] for each in found),
        max_rows=max(1, memory_bytes // ROW_BYTES),
    )
    for part in counts:
        ranking.update(part)
    return ranking.finish({f.name: max(each["max_lengths"][f.name] for each in found) for f in columns})


def _written(vocabulary: pl.DataFrame, path: Path) -> Tensor:
    """The keys of a vocabulary, which is written; its counts are not needed in memory."""
    path.parent.mkdir(exist_ok=True)
    vocabulary.write_parquet(path, compression="zstd", statistics=False)
    return vocabulary["key"].to_torch()


def _counts_path(stem: Path) -> Path:
    return stem.with_suffix(".counts.parquet")


def _sample_path(stem: Path) -> Path:
    return stem.with_suffix(".sample.parquet")


def _save_each(frames: dict[str, pl.DataFrame], path: Path) -> None:
    """One file of all frames, told apart by the column `of`; a row group each, so that one is read alone."""
    if frames:
        each = pl.concat(frame.select(pl.lit(name).alias("of"), pl.all()) for name, frame in frames.items())
        each.write_parquet(path, compression="lz4", statistics=True, row_group_size=1 << 16)


def _saved(name: str, paths: list[Path]) -> pl.LazyFrame:
    return pl.scan_parquet(paths, glob=False).filter(pl.col("of") == name).drop("of")
