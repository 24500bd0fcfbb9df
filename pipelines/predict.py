"""`python -m pipelines.predict`: raw rows, never-seen ids included, scored by an exported bundle, streaming."""

import logging
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipelines.config import Run
from pipelines.entry import stage_main
from recsys.core.errors import DataError
from recsys.core.progress import ProgressBar
from recsys.core.specs import RowType
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
    rows = predict(bundle, source, target, row_type=config.row_type, batch_size=config.batch_size)
    logger.info("scored %d rows of %s with %s into %s", rows, source, bundle, target)


def predict(bundle: Path, source: Path, target: Path, *, row_type: RowType, batch_size: int) -> int:
    """Score `source` with `bundle`; returns the number of rows.

    The output has `__row__` (Int64, position in the input), `logit` and `probability` (Float32).

    Raises:
        DataError: the bundle is damaged, or the input lacks a column of the bundle's schema, or holds a bad value.
    """
    manifest = BundleManifest.read(bundle)
    schema, served = manifest.schema, load_scripted(manifest.model_path(bundle, row_type))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, rows = target.with_name(target.name + ".partial"), 0
    writer: pq.ParquetWriter | None = None
    with torch.inference_mode(), ProgressBar("predict", total=0) as bar:
        for frame in read_raw(source, schema, chunk_rows=batch_size):
            logits, probabilities = served(border_tensors(frame, schema))
            scores = frame.select("__row__").with_columns(
                pl.Series("logit", logits.numpy()), pl.Series("probability", probabilities.numpy())
            )
            table: pa.Table = scores.to_arrow()
            writer = writer or pq.ParquetWriter(partial, table.schema)
            writer.write_table(table)
            rows += frame.height
            bar.advance(frame.height)
    if writer is None:
        raise DataError(f"{source}: no rows to score. Give a file with at least one row.")
    writer.close()
    partial.replace(target)
    return rows


main = stage_main(work)

if __name__ == "__main__":
    main()
