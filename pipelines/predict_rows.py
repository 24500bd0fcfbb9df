"""Scoring raw rows with an exported bundle, streaming, into a file that appears when it is whole."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from pipelines.config import PredictConfig
from recsys.core.errors import DataError, StageError
from recsys.core.progress import ProgressBar
from recsys.core.schema import Schema
from recsys.data.fingerprint import file_fingerprint
from recsys.data.raw import ROW, border_tensors, read_raw
from recsys.data.readers import Reader, reader_for
from recsys.export.script import load_scripted


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is scored with what."""

    source: Path
    model: Path
    schema: Schema
    config: PredictConfig

    def origin(self) -> dict[str, str]:
        """What the scores depend on, as the output's metadata tells it."""
        return {
            "input": file_fingerprint(self.source),
            "model": file_fingerprint(self.model),
            "columns": ",".join(self.config.columns),
            "quoted": str(self.config.quoted),
        }

    @property
    def reader(self) -> Reader:
        """Of the input."""
        config = self.config
        return reader_for(self.source, self.schema, columns=tuple(config.columns), quoted=config.quoted)

    def frames(self) -> Iterator[pl.DataFrame]:
        """The input's rows, normalised."""
        config = self.config
        columns, chunk_rows = tuple(config.columns), config.batch_size
        return read_raw(self.source, self.schema, columns=columns, quoted=config.quoted, chunk_rows=chunk_rows)

    def scored(self, frame: pl.DataFrame, served: nn.Module) -> pl.DataFrame:
        """`__row__` (Int64, position in the input), its passthrough columns, `logit` and `probability` (Float32)."""
        logits, probabilities = served(border_tensors(frame, self.schema))
        kept = [name for name in self.schema.passthrough if name in frame.columns]
        return frame.select(ROW, *kept).with_columns(
            pl.Series("logit", logits.numpy()), pl.Series("probability", probabilities.numpy())
        )


def input_columns(source: Path, schema: Schema, config: PredictConfig) -> list[str]:
    """Columns of the input, by its first row; none of a file without rows."""
    reader = reader_for(source, schema, columns=tuple(config.columns), quoted=config.quoted)
    return next(reader.frames(source, 1), pl.DataFrame()).columns


def predict(job: Job, target: Path) -> int:
    """Write what the job says of each row; returns the number of rows.

    Raises:
        DataError: the bundle is damaged, or the input lacks a column of the bundle's schema, or holds a bad value.
    """
    served, total = load_scripted(job.model), job.reader.count_rows(job.source)
    with torch.inference_mode(), ProgressBar("predict", total=total) as bar, _written(target, job.origin()) as write:
        rows = 0
        for frame in job.frames():
            write(job.scored(frame, served).to_arrow(compat_level=pl.CompatLevel.oldest()))
            rows += frame.height
            bar.advance(frame.height)
        if not rows:
            raise DataError(f"{job.source}: no rows to score. Give a file with at least one row.")
    return rows


def is_done(target: Path, origin: dict[str, str]) -> bool:
    """True if `target` holds these very scores; false if there is none."""
    if not target.exists():
        return False
    try:
        metadata = pq.read_schema(target).metadata or {}
    except (pa.ArrowInvalid, OSError):
        metadata = {}
    found = {key: metadata.get(f"recsys.{key}".encode(), b"").decode() for key in origin}
    differs = [key for key in origin if found[key] != origin[key]]
    if differs:
        raise StageError(
            f"{target} holds other scores (of another {' and '.join(differs)}). Choose predict.output=…, or set "
            "overwrite=true to replace it."
        )
    return True


@contextmanager
def _written(target: Path, origin: dict[str, str]) -> Iterator[Callable[[pa.Table], None]]:
    """A function that appends to a Parquet file, which takes the place of `target` if all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    with ExitStack() as open_files:
        writers: list[pq.ParquetWriter] = []

        def write(table: pa.Table) -> None:
            if not writers:
                schema = table.schema.with_metadata({f"recsys.{key}": value for key, value in origin.items()})
                writers.append(open_files.enter_context(pq.ParquetWriter(partial, schema)))
            writers[0].write_table(table.replace_schema_metadata(writers[0].schema.metadata))

        try:
            yield write
            open_files.close()
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
