"""Scoring raw rows with an exported bundle, streaming, into a file that appears when it is whole."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from pipelines.config import PredictConfig
from recsys.core.errors import DataError, StageError
from recsys.core.labels import LabelKind, score_columns
from recsys.core.progress import ProgressBar
from recsys.core.schema import Schema
from recsys.data.fingerprint import file_fingerprint, fingerprint_of
from recsys.data.joined import Join, joined_reader, needed
from recsys.data.json_lines import JsonLinesReader
from recsys.data.raw import ROW, border_tensors, read_raw, unknown_keys, warn_of_unknown
from recsys.data.readers import Reader, reader_for
from recsys.export.script import answered, load_scripted


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is scored with what."""

    source: Path
    model: Path
    schema: Schema
    config: PredictConfig
    labels: tuple[str, ...] = ()  # that the bundle tells of
    joins: tuple[Join, ...] = ()  # joined to rows that lack their columns
    told: Counter[str] = field(default_factory=Counter)  # what is said of the rows at the end: how many are what

    def origin(self) -> dict[str, str]:
        """What the scores depend on, as the output's metadata tells it."""
        beside = [fingerprint_of([*join.rule, *map(file_fingerprint, join.paths)]) for join in self.missing]
        return ({"joined files": ",".join(beside)} if beside else {}) | {
            "input": file_fingerprint(self.source),
            "model": file_fingerprint(self.model),
            "columns": ",".join(self.config.columns),
            "quoted": str(self.config.quoted),
        }

    @cached_property  # into `__dict__`, so that it may be frozen
    def missing(self) -> tuple[Join, ...]:
        """What gives columns that the schema asks for and the input lacks, or what such joins need."""
        names = tuple(dict.fromkeys(name for join in self.joins for name in (*join.gives, *join.needs)))
        asked = (*self.schema.raw_columns, *self.schema.passthrough)
        return needed(self.joins, asked, present=self._present(names) if names else ())

    def _present(self, names: tuple[str, ...]) -> list[str]:
        """Those of the columns that the input has."""
        reader = plain_reader(self.source, self.schema, self.config)
        if isinstance(reader, JsonLinesReader):  # which makes up the columns that it is told to read
            reader = replace(reader, columns=(), optional=names)
        return [name for name in columns_of(self.source, reader) if name in names]

    @cached_property
    def reader(self) -> Reader:
        """Of the input, with what is joined."""
        return joined_reader(plain_reader(self.source, self.schema, self.config), self.missing, self.schema)

    def frames(self) -> Iterator[pl.DataFrame]:
        """The input's rows, normalised."""
        return read_raw(self.source, self.schema, self.reader, chunk_rows=self.config.batch_size)

    def scored(self, frame: pl.DataFrame, served: nn.Module) -> pl.DataFrame:
        """`__row__` (Int64, position in the input), its passthrough columns, and Float32 of each label `logit` and
        `probability` as `score_columns` calls them, or `prediction` where labels are numbers.
        """
        features = border_tensors(frame, self.schema)
        try:
            outputs, answers = answered(served, features)
        except DataError as error:
            first, last = int(frame[ROW][0]) + 1, int(frame[ROW][-1]) + 1
            raise DataError(f"{self.source}, rows {first} to {last} (from 1, header not counted): {error}") from error
        kept = [name for name in self.schema.passthrough if name in frame.columns]
        pairs = torch.stack([outputs.view(frame.height, -1), answers.view(frame.height, -1)], 2).flatten(1)
        names = [name for pair in score_columns(self.schema.label_kind, self.labels) for name in pair]
        scores = [pl.Series(name, each.numpy()) for name, each in zip(names, pairs.t().contiguous(), strict=True)]
        if self.schema.label_kind is LabelKind.NUMBER:
            scores = scores[1:]  # in standard deviations, it tells a reader nothing
        return frame.select(ROW, *kept).with_columns(scores)


def plain_reader(source: Path, schema: Schema, config: PredictConfig) -> Reader:
    """Of the input, with nothing joined."""
    return reader_for(source, schema, columns=tuple(config.columns), quoted=config.quoted)


def columns_of(source: Path, reader: Reader) -> list[str]:
    """Columns of the input, by its first row; none of a file without rows."""
    return next(reader.frames(source, 1), pl.DataFrame()).columns


def predict(job: Job, target: Path) -> int:
    """Write what the job says of each row; returns the number of rows.

    Raises:
        DataError: the bundle is damaged, or the input lacks a column of the bundle's schema, or holds a bad value.
    """
    served, total = load_scripted(job.model), job.reader.count_rows(job.source)
    with torch.inference_mode(), ProgressBar("predict", total=total) as bar, _written(target, job.origin()) as write:
        rows, unknown = 0, Counter[str]()
        for frame in job.frames():
            unknown.update(unknown_keys(frame))
            write(job.scored(frame, served).to_arrow(compat_level=pl.CompatLevel.oldest()))
            rows += frame.height
            bar.advance(frame.height)
        if not rows:
            raise DataError(f"{job.source}: no rows to score. Give a file with at least one row.")
    warn_of_unknown(unknown, rows)
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
