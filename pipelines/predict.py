"""`python -m pipelines.predict`: raw rows, never-seen ids included, scored by an exported bundle, streaming."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipelines.config import PredictConfig, Run
from pipelines.disk import no_space_told
from pipelines.entry import stage_main
from recsys.core.errors import DataError, StageError
from recsys.core.manifest import Manifest
from recsys.core.progress import ProgressBar
from recsys.core.schema import Schema
from recsys.data.fingerprint import file_fingerprint
from recsys.data.ingest import RAW_SAMPLE_NAME
from recsys.data.raw import ROW, border_tensors, read_raw
from recsys.data.readers import reader_for
from recsys.export.manifest import BundleManifest
from recsys.export.script import load_scripted

logger = logging.getLogger(__name__)


def work(run: Run) -> None:
    """Score a file of raw rows into a Parquet file, which appears when it is whole.

    Raises:
        StageError: the output holds the scores of something else, and `overwrite` is not set.
    """
    config = run.config.predict
    bundle = Path(config.bundle) if config.bundle else run.stage("export")
    source = Path(config.input) if config.input else run.stage("ingest") / RAW_SAMPLE_NAME
    target = Path(config.output) if config.output else run.stage("predict") / "scores.parquet"
    if not source.is_file():
        raise DataError(
            f"predict.input={source}: no such file. Give a CSV, TSV, JSONL, Parquet or Arrow file of raw rows."
        )
    manifest = BundleManifest.read(bundle)
    if not config.input:
        manifest.check_schema(Manifest.read(run.stage("ingest")).schema)
    job = Job(source=source, model=manifest.model_path(bundle, config.row_type), schema=manifest.schema, config=config)
    if not run.config.overwrite and _is_done(target, job.origin()):
        logger.info("predict: unchanged, nothing to do (%s)", target)
        return
    with no_space_told("predict", target):
        rows = predict(job, target)
    logger.info("scored %d rows of %s with %s into %s", rows, source, bundle, target)


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


def predict(job: Job, target: Path) -> int:
    """Score; returns the number of rows.

    The output has `__row__` (Int64, position in the input), the input's columns that the schema names as passthrough,
    `logit` and `probability` (Float32).

    Raises:
        DataError: the bundle is damaged, or the input lacks a column of the bundle's schema, or holds a bad value.
    """
    schema, config, served = job.schema, job.config, load_scripted(job.model)
    columns = tuple(config.columns)
    total = reader_for(job.source, schema, columns=columns, quoted=config.quoted).count_rows(job.source)
    frames = read_raw(job.source, schema, columns=columns, quoted=config.quoted, chunk_rows=config.batch_size)
    with torch.inference_mode(), ProgressBar("predict", total=total) as bar, _written(target, job.origin()) as write:
        rows = 0
        for frame in frames:
            logits, probabilities = served(border_tensors(frame, schema))
            kept = [name for name in schema.passthrough if name in frame.columns]
            scores = frame.select(ROW, *kept).with_columns(
                pl.Series("logit", logits.numpy()), pl.Series("probability", probabilities.numpy())
            )
            write(scores.to_arrow(compat_level=pl.CompatLevel.oldest()))
            rows += frame.height
            bar.advance(frame.height)
        if not rows:
            raise DataError(f"{job.source}: no rows to score. Give a file with at least one row.")
    return rows


def _is_done(target: Path, origin: dict[str, str]) -> bool:
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


main = stage_main(work)

if __name__ == "__main__":
    main()
