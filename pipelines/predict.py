"""`python -m pipelines.predict`: raw rows, never-seen ids included, scored by an exported bundle, streaming."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipelines.config import PredictConfig, Run
from pipelines.disk import no_space_told
from pipelines.entry import stage_main
from recsys.core.errors import DataError
from recsys.core.manifest import Manifest
from recsys.core.progress import ProgressBar
from recsys.data.ingest import RAW_SAMPLE_NAME
from recsys.data.raw import border_tensors, read_raw
from recsys.export.manifest import BundleManifest
from recsys.export.script import load_scripted

logger = logging.getLogger(__name__)


def work(run: Run) -> None:
    """Score a file of raw rows into a Parquet file, which appears when it is whole."""
    config = run.config.predict
    bundle = Path(config.bundle) if config.bundle else run.stage("export")
    source = Path(config.input) if config.input else run.stage("ingest") / RAW_SAMPLE_NAME
    target = Path(config.output) if config.output else run.stage("predict") / "scores.parquet"
    if not source.is_file():
        raise DataError(f"predict.input={source}: no such file. Give a CSV, TSV or Parquet file of raw rows.")
    if not config.input:
        BundleManifest.read(bundle).check_schema(Manifest.read(run.stage("ingest")).schema)
    with no_space_told("predict", target):
        rows = predict(bundle, source, target, config)
    logger.info("scored %d rows of %s with %s into %s", rows, source, bundle, target)


def predict(bundle: Path, source: Path, target: Path, config: PredictConfig) -> int:
    """Score `source` with `bundle`; returns the number of rows.

    The output has `__row__` (Int64, position in the input), `logit` and `probability` (Float32).

    Raises:
        DataError: the bundle is damaged, or the input lacks a column of the bundle's schema, or holds a bad value.
    """
    manifest = BundleManifest.read(bundle)
    schema, served = manifest.schema, load_scripted(manifest.model_path(bundle, config.row_type))
    columns = tuple(config.columns)
    frames = read_raw(source, schema, columns=columns, quoted=config.quoted, chunk_rows=config.batch_size)
    with torch.inference_mode(), ProgressBar("predict", total=0) as bar, _written(target) as write:
        rows = 0
        for frame in frames:
            logits, probabilities = served(border_tensors(frame, schema))
            scores = frame.select("__row__").with_columns(
                pl.Series("logit", logits.numpy()), pl.Series("probability", probabilities.numpy())
            )
            write(scores.to_arrow())
            rows += frame.height
            bar.advance(frame.height)
        if not rows:
            raise DataError(f"{source}: no rows to score. Give a file with at least one row.")
    return rows


@contextmanager
def _written(target: Path) -> Iterator[Callable[[pa.Table], None]]:
    """A function that appends to a Parquet file, which takes the place of `target` if all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    with ExitStack() as open_files:
        writers: list[pq.ParquetWriter] = []

        def write(table: pa.Table) -> None:
            if not writers:
                writers.append(open_files.enter_context(pq.ParquetWriter(partial, table.schema)))
            writers[0].write_table(table)

        try:
            yield write
            open_files.close()
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


main = stage_main(work)

if __name__ == "__main__":
    main()
