"""`python -m pipelines.join_vectors`: rows for a click model, with the vectors of their users and items as numbers.

The graph must not know what the click model is tested on: train the bundle's run on pairs of the train rows alone.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import polars as pl
import torch
from torch import Tensor, nn

from pipelines.config import PredictConfig, Run
from pipelines.disk import no_space_told
from pipelines.entry import stage_main
from pipelines.predict_rows import Job, columns_of, is_done, plain_reader, predict
from recsys.core.errors import ConfigError, DataError
from recsys.core.schema import CategoricalFeature, Schema
from recsys.core.specs import RowType
from recsys.data.raw import border_tensors
from recsys.export.retrieval_manifest import ITEMS_NAME, RetrievalManifest

logger = logging.getLogger(__name__)

SUFFIX = "_vector_"
"""Between a column's name and the number of a vector's component."""


def work(run: Run) -> None:
    """Write `predict.output`, Parquet, and say which numeric columns a data set of it has.

    Raises:
        ConfigError: no input is named, or the bundle's scores are no dot products.
        DataError: the input has neither users nor items.
        StageError: the output holds something else, and `overwrite` is not set.
    """
    config = run.config.predict
    if not config.input:
        raise ConfigError("predict.input is empty: name the file of rows that vectors are joined to.")
    bundle = Path(config.bundle) if config.bundle else run.stage("export")
    target = Path(config.output) if config.output else run.stage("predict") / "rows_with_vectors.parquet"
    job = vector_job(bundle, Path(config.input), config)
    if run.config.overwrite or not is_done(target, job.origin()):
        with no_space_told("join_vectors", target):
            logger.info("joined vectors to %d rows", predict(job, target))
    names = ", ".join(f"{{name: {name}, transform: identity}}" for name in job.names)
    print(f"{target}: for dataset=parquet, files: [{target}], numeric: [{names}]")


@dataclass(frozen=True, kw_only=True)
class VectorJob(Job):
    """Adds float32 columns `<column>_vector_0`, … to rows; zeros where training knew none of the kind."""

    bundle: Path
    user: CategoricalFeature | None  # None: the rows have none
    item: CategoricalFeature | None
    dim: int

    @property
    def names(self) -> list[str]:
        """Of all columns that are added."""
        present = [column.name for column in (self.user, self.item) if column is not None]
        return [f"{name}{SUFFIX}{number}" for name in present for number in range(self.dim)]

    @cached_property  # into `__dict__`, so that it may be frozen
    def items(self) -> tuple[Tensor, Tensor]:
        """Keys of items, ascending, int64 (M,), and their vectors, float32 (M, d)."""
        frame = pl.read_parquet(self.bundle / ITEMS_NAME).sort("key")
        return frame["key"].to_torch(), torch.from_numpy(frame["vector"].to_numpy().copy())

    def frames(self) -> Iterator[pl.DataFrame]:
        """The input's rows with all their columns, as they came."""
        return self.reader.frames(self.source, self.config.batch_size)

    def scored(self, frame: pl.DataFrame, served: nn.Module) -> pl.DataFrame:
        """Rows as they came, with vectors."""
        keys = border_tensors(frame, self.schema)
        parts = []
        if self.user is not None:
            parts.append(served.query({self.user.name: keys[self.user.name]}))  # type: ignore[operator]  # a method
        if self.item is not None:
            parts.append(self._of_items(keys[self.item.name]))
        columns = torch.cat(parts, dim=1).t().contiguous().numpy()
        return frame.with_columns(pl.Series(n, c) for n, c in zip(self.names, columns, strict=True))

    def _of_items(self, keys: Tensor) -> Tensor:
        known, vectors = self.items
        at = torch.searchsorted(known, keys).clamp_(max=len(known) - 1)
        return vectors[at] * (known[at] == keys).unsqueeze(1)


def vector_job(bundle: Path, source: Path, config: PredictConfig) -> VectorJob:
    """The job of a bundle and a file of rows; errors as of `work`."""
    manifest = RetrievalManifest.read(bundle)
    if "vector" not in pl.read_parquet_schema(bundle / ITEMS_NAME):
        raise ConfigError(
            f"{bundle}: scores of a {manifest.recommender} are no dot products, so there are no vectors. Export a run "
            "of fast_rp, or of a model that is trained."
        )
    if not source.is_file():
        raise DataError(f"predict.input={source}: no such file. Give a CSV, TSV, JSONL, Parquet or Arrow file.")
    columns = columns_of(source, plain_reader(source, manifest.schema, config))
    user = manifest.user if manifest.user.name in columns else None
    item = replace(manifest.item, multi_valued=False) if manifest.item.name in columns else None
    present = tuple(column for column in (user, item) if column is not None)
    if not present:
        raise DataError(
            f"{source}: neither {manifest.user.name!r} nor {manifest.item.name!r}, which the bundle has vectors of, is "
            f"among {columns}. Name the columns as the pairs that it was trained on have them."
        )
    return VectorJob(
        source=source,
        model=manifest.model_path(bundle, RowType.FLOAT32),
        schema=Schema(label=manifest.schema.label, categorical=present),
        config=config,
        bundle=bundle,
        user=user,
        item=item,
        dim=len(pl.read_parquet(bundle / ITEMS_NAME, n_rows=1)["vector"][0]),
    )


main = stage_main(work)

if __name__ == "__main__":
    main()
