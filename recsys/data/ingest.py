"""Raw rows to a dataset folder: statistics of train in one pass, encoding in a second, rows never all in memory.

The folder: `manifest.json`, `{train,validation,test}/part-*.parquet`, `vocabulary/<feature>.parquet`, and
`raw_sample.parquet`, the first raw test rows; `rejected/part-*.parquet` if rows were left out. Equal input, config and
seed give equal bytes.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.manifest import CategoricalStatistics, Manifest, NumericStatistics, Split
from recsys.core.progress import ProgressBar
from recsys.core.schema import LENGTHS_SUFFIX, Schema
from recsys.data.dataset import SPLIT_NAMES, Dataset, RawChunk, RawTable
from recsys.data.encoder import FeatureEncoder, vocabulary_path
from recsys.data.faults import Rejected
from recsys.data.fingerprint import file_fingerprint, fingerprint_of
from recsys.data.raw import tensors_of
from recsys.data.splits import Assign, check_splits, split_assigner
from recsys.data.statistics import KeyCounter, NumericMoments
from recsys.data.writer import SplitWriter, encoded_frame

logger = logging.getLogger(__name__)

RAW_SAMPLE_NAME = "raw_sample.parquet"
RAW_SAMPLE_ROWS = 20_000


@dataclass(frozen=True, kw_only=True)
class IngestOptions:
    """How to ingest; only `seed` and `max_rejected` change which rows, ids or splits come out."""

    seed: int = 2021  # of the split and of generated rows
    rows_per_file: int = 131_072
    chunk_rows: int = 65_536  # raw rows in memory at a time
    max_rejected: float = 0.0  # share of rows with faults that may be left out; 0 refuses the first one

    def __post_init__(self) -> None:
        if not 0 <= self.max_rejected < 1:
            raise ConfigError(f"ingest.max_rejected={self.max_rejected}: must be at least 0 and less than 1.")
        for name in ("rows_per_file", "chunk_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"ingest.{name}={getattr(self, name)}: must be 1 or more.")


def ingest(dataset: Dataset, folder: Path, *, options: IngestOptions) -> Manifest:
    """Encode a data set into `folder`, which should be empty.

    Raises:
        DataError: input is missing, damaged or of the wrong type, or a split cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = dataset.open(folder)
    run = _Run(table, folder, options)
    numeric, categorical, vocabularies = run.fit()
    splits = run.encode(FeatureEncoder(table.schema, numeric, vocabularies))
    manifest = Manifest(
        dataset=table.name,
        schema=table.schema,
        splits=splits,
        numeric=numeric,
        categorical=categorical,
        fingerprint=input_fingerprint(table, seed=options.seed),
        num_rejected=run.rejected.count,
    )
    manifest.write(folder)
    logger.info("ingested %s: %s rows", table.name, {name: split.num_rows for name, split in splits.items()})
    return manifest


def input_fingerprint(table: RawTable, *, seed: int) -> str:
    """Fingerprint of the raw input, the schema, the split rule and the seed."""
    files = [[file_fingerprint(file.path), file.split or ""] for file in table.files]
    return fingerprint_of([files, table.schema, table.split, seed])


class _Run:
    """The two passes over one table."""

    def __init__(self, table: RawTable, folder: Path, options: IngestOptions) -> None:
        self._table, self._folder, self._options = table, folder, options
        self._num_rows = sum(table.count_rows())
        self._strict = options.max_rejected == 0
        self._assign: Assign = split_assigner(
            table, self._num_rows, seed=options.seed, chunk_rows=options.chunk_rows, strict=self._strict
        )
        self.rejected = Rejected(folder, num_rows=self._num_rows, limit=options.max_rejected)

    def _chunks(self, description: str) -> Iterator[tuple[RawChunk, Tensor]]:
        """Every chunk with the split of its rows."""
        with ProgressBar(description, total=self._num_rows) as progress:
            for chunk in self._table.chunks(self._options.chunk_rows, strict=self._strict):
                yield chunk, self._assign(chunk)
                progress.advance(chunk.frame.height + chunk.rejected.height)

    def fit(self) -> tuple[dict[str, NumericStatistics], dict[str, CategoricalStatistics], dict[str, Tensor]]:
        """Statistics and vocabularies of the training rows; writes the vocabularies."""
        schema = self._table.schema
        counters = {name: KeyCounter(columns) for name, columns in schema.vocabularies.items()}
        moments = {feature.name: NumericMoments(feature) for feature in schema.numeric}
        split_labels = torch.zeros(len(SPLIT_NAMES), 2, dtype=torch.int64)
        for chunk, codes in self._chunks("statistics"):
            self.rejected.add(chunk.rejected)
            labels = chunk.frame[schema.label].to_torch().long()
            split_labels += torch.bincount(codes.long() * 2 + labels, minlength=split_labels.numel()).view_as(
                split_labels
            )
            _update(counters, moments, chunk.frame.filter(pl.Series((codes == 0).numpy())), schema)
        self.rejected.write()
        check_splits(self._table, split_labels.tolist())
        numeric = {name: moment.finish() for name, moment in moments.items()}
        categorical: dict[str, CategoricalStatistics] = {}
        vocabularies: dict[str, Tensor] = {}
        for name, counter in counters.items():
            vocabulary, statistics = counter.finish()
            categorical |= statistics
            if statistics[name].num_embeddings is not None:
                vocabularies[name] = vocabulary["key"].to_torch()
                path = vocabulary_path(self._folder, name)
                path.parent.mkdir(exist_ok=True)
                vocabulary.write_parquet(path, compression="zstd", statistics=False)
        return numeric, categorical, vocabularies

    def encode(self, encoder: FeatureEncoder) -> dict[str, Split]:
        """Write every split's files and the sample of raw rows."""
        schema = self._table.schema
        writers = {n: SplitWriter(self._folder, n, rows_per_file=self._options.rows_per_file) for n in SPLIT_NAMES}
        sample: list[pl.DataFrame] = []
        for chunk, codes in self._chunks("encoding"):
            encoded = encoder(tensors_of(chunk.frame, schema))
            frame = encoded_frame(chunk.frame, schema, encoded)
            masks = [pl.Series((codes == code).numpy()) for code in range(len(SPLIT_NAMES))]
            for name, mask in zip(SPLIT_NAMES, masks, strict=True):
                writers[name].write(frame.filter(mask))
            sample.append(chunk.frame.filter(masks[-1]).head(RAW_SAMPLE_ROWS - sum(part.height for part in sample)))
        pl.concat(sample).write_parquet(self._folder / RAW_SAMPLE_NAME, statistics=False)
        return {name: writer.close() for name, writer in writers.items()}


def _update(
    counters: dict[str, KeyCounter], moments: dict[str, NumericMoments], frame: pl.DataFrame, schema: Schema
) -> None:
    tensors = tensors_of(frame, schema)
    for name, moment in moments.items():
        moment.update(tensors[name])
    for feature in schema.categorical:
        counter = counters[feature.vocabulary or feature.name]
        counter.update(feature.name, tensors[feature.name], tensors.get(feature.name + LENGTHS_SUFFIX))
