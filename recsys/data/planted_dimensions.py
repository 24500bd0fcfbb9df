"""A generated data set whose features have planted intrinsic dimensions: what a search of widths should find.

The logit of a row is a sum over its features F1 … of a bilinear effect of the feature's id and the row's context: the
inner product of d latent numbers of the id with the first d of those of the context, d planted for each feature. As a
matrix of ids by contexts, the effect has rank d: no narrower embedding can hold it, and a wider one gains nothing. Each
planted dimension explains the same share of the logit's variance. All ids are equally frequent, so that frequency
tells nothing. Every number is a hash of the row, the id and the seed; the probability is kept as `bayes_probability`.
"""

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.schema import CategoricalFeature, KeyType, Schema
from recsys.data.dataset import RawTable, SplitConfig
from recsys.data.made import Made, pieces_of
from recsys.data.readers import ParquetReader
from recsys.data.splits import NON_NEGATIVE
from recsys.ops.hashing import mix64, salt_for

CHUNK_ROWS = 65_536
CONTEXT, BAYES = "context", "bayes_probability"


@dataclass(frozen=True, kw_only=True)
class PlantedDimensionsDataset:
    """Generated rows: label, context, F1 …, bayes_probability."""

    name: str = "planted_dimensions"
    num_rows: int = 100_000
    dimensions: list[int] = field(default_factory=lambda: [1, 1, 2, 2, 4, 8])  # of F1, F2, …
    ids_per_feature: int = 64
    contexts: int = 32
    signal: float = 3.0  # standard deviation of the logit
    seed: int = 2021
    split: SplitConfig = field(default_factory=SplitConfig)

    def __post_init__(self) -> None:
        if not self.dimensions or min(self.dimensions) < 1:
            raise ConfigError(f"dataset.dimensions={self.dimensions}: one or more, each 1 or more.")
        if max(self.dimensions) > min(self.contexts, self.ids_per_feature):
            raise ConfigError(
                f"dataset.dimensions={self.dimensions}: a matrix of {self.ids_per_feature} ids by {self.contexts} "
                "contexts has no such rank. Raise ids_per_feature or contexts."
            )
        if self.num_rows < 10 or self.signal <= 0:
            raise ConfigError(
                f"dataset.num_rows={self.num_rows}, dataset.signal={self.signal}: 10 rows or more, a signal above 0."
            )

    def inputs(self) -> tuple[Path, ...]:
        """None: every row is a function of this config."""
        return ()

    def open(self, folder: Path, *, max_rejected: float = 0.0) -> RawTable:
        """Write the rows to `folder/raw` as Parquet and return them."""
        pieces = pieces_of(self.num_rows, CHUNK_ROWS, self._frame)
        files = Made(folder, self, max_rejected=max_rejected).files(pieces, num_rows=self.num_rows)
        return RawTable(name=self.name, schema=self.schema(), files=files, reader=ParquetReader(), split=self.split)

    @property
    def planted(self) -> dict[str, int]:
        """Intrinsic dimension of each feature but the context."""
        return {f"F{number + 1}": dimension for number, dimension in enumerate(self.dimensions)}

    def schema(self) -> Schema:
        """The schema of the rows."""
        names = (CONTEXT, *self.planted)
        single = tuple(CategoricalFeature(name=name, key_type=KeyType.INTEGER, min_count=1) for name in names)
        return Schema(label="label", categorical=single, passthrough=(BAYES,))

    def _frame(self, rows: Tensor) -> pl.DataFrame:
        context = self._whole(rows, CONTEXT, self.contexts)
        columns, logit = {CONTEXT: context}, torch.zeros(len(rows), dtype=torch.float64)
        for name, dimension in self.planted.items():
            ids = columns[name] = self._whole(rows, name, self.ids_per_feature)
            for k in range(dimension):
                logit += self._normal(ids, f"{name} latent {k}") * self._normal(context, f"context latent {k}")
        probability = torch.sigmoid(self.signal / sum(self.dimensions) ** 0.5 * logit)
        label = (self._uniform(rows, "label") < probability).to(torch.int8)
        series = [pl.Series(name, values.numpy()) for name, values in columns.items()]
        return pl.DataFrame([pl.Series("label", label.numpy()), *series, pl.Series(BAYES, probability.numpy())])

    def _uniform(self, keys: Tensor, name: str) -> Tensor:
        """Numbers in (0, 1), float64, one a key."""
        hashed = mix64(keys + salt_for(name, 0, self.seed)) & NON_NEGATIVE
        return ((hashed >> 10).double() + 0.5) * 2.0**-53

    def _normal(self, keys: Tensor, name: str) -> Tensor:
        normal: Tensor = torch.special.ndtri(self._uniform(keys, name))
        return normal

    def _whole(self, keys: Tensor, name: str, size: int) -> Tensor:
        return (self._uniform(keys, name) * size).long()
