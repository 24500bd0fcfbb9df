"""`Manifest`: what ingest learned about a data set, and where its encoded rows are."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.core.jsonable import from_json, to_json
from recsys.core.labels import LabelStatistics
from recsys.core.schema import CategoricalFeature, Schema
from recsys.core.specs import FeatureSpec, Read

MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split: files relative to the manifest's folder, in row order."""

    files: tuple[str, ...]
    file_rows: tuple[int, ...]  # rows of each file
    num_positive: int  # rows whose label is 1

    @property
    def num_rows(self) -> int:
        """Rows of all files."""
        return sum(self.file_rows)


@dataclass(frozen=True, kw_only=True)
class CategoricalStatistics:
    """Training statistics of one categorical column; but for its lengths, of all columns that share its vocabulary."""

    num_embeddings: int | None  # vocabulary size with the out-of-vocabulary ids; None when hashed
    num_keys: int  # distinct keys in train, before min_count and max_size
    oov_count: int  # training look-ups of keys that the vocabulary lacks
    octave_counts: tuple[int, ...]  # k: training look-ups with id in [2**k, 2**(k+1)); ids rank by frequency
    max_length: int  # longest row; 1 for a single-valued column


@dataclass(frozen=True, kw_only=True)
class NumericStatistics:
    """Training statistics of one numeric column, after log1p where the transform has it; missing values left out."""

    mean: float
    std: float  # 1.0 for a constant column
    num_missing: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything later stages need to know about the encoded data.

    Encoded Parquet columns: `__row__` (Int64, position of the raw row in the input), `__label__` (Float32), where the
    schema names a weight `__weight__` (Float32), each numeric feature (Float32, transformed), each categorical feature
    (Int64 id, or List(Int64) when multi-valued), passthrough columns as they were (`__raw__<name>` where the column is
    a feature too).
    """

    dataset: str
    schema: Schema
    splits: dict[str, Split]  # train, validation, test
    numeric: dict[str, NumericStatistics]
    categorical: dict[str, CategoricalStatistics]
    fingerprint: str  # of the raw input, the schema and the split rule
    bounds: dict[str, tuple[float, ...]] = field(default_factory=dict)  # of quantile buckets, float32, by feature
    num_rejected: int = 0  # raw rows left out because of faults; `rejected/` lists them
    label: LabelStatistics | None = None  # of number labels; None: labels are clicks

    def feature_specs(self) -> list[FeatureSpec]:
        """A logical embedding feature for each vocabulary, one wide, read by all columns that share it."""
        return [self._feature_spec(columns) for columns in self.schema.vocabularies.values()]

    def _feature_spec(self, columns: Sequence[CategoricalFeature]) -> FeatureSpec:
        own, *others = (
            Read(name=f.name, source=f.name, pooling=f.pooling, max_length=f.max_length if f.multi_valued else 1)
            for f in columns
        )
        known = self.categorical[own.name]
        return FeatureSpec(
            name=own.name,
            embedding_dim=1,
            num_embeddings=known.num_embeddings,
            pooling=own.pooling,
            max_length=own.max_length,
            octave_counts=known.octave_counts,
            also=tuple(others),
        )

    def bound_tensors(self) -> dict[str, Tensor]:
        """The bounds of quantile buckets as tensors."""
        return {name: torch.tensor(bounds, dtype=torch.float32) for name, bounds in self.bounds.items()}

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into `folder`."""
        (folder / MANIFEST_NAME).write_text(json.dumps(to_json(self), indent=1))

    @staticmethod
    def read(folder: Path) -> "Manifest":
        """Read `manifest.json` of `folder`.

        Raises:
            DataError: there is none, it is damaged, or another version wrote it.
        """
        path = folder / MANIFEST_NAME
        if not path.is_file():
            raise DataError(
                f"{path}: no such file. Run `python -m pipelines.ingest` first, or point to its output folder."
            )
        try:
            return from_json(Manifest, json.loads(path.read_text()))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: not valid JSON ({error}). Run ingest again.") from error
