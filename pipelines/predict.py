"""`python -m pipelines.predict`: raw rows, never-seen ids included, scored by an exported bundle, streaming."""

import logging
from pathlib import Path

from pipelines.config import Run
from pipelines.disk import no_space_told
from pipelines.entry import stage_main
from pipelines.predict_lists import list_job
from pipelines.predict_rows import Job, is_done, predict
from recsys.core.errors import ConfigError, DataError
from recsys.core.manifest import Manifest
from recsys.data.ingest import RAW_SAMPLE_NAME
from recsys.data.table import TableDataset
from recsys.export.manifest import BundleManifest
from recsys.export.retrieval_manifest import lists_items

logger = logging.getLogger(__name__)


def work(run: Run) -> None:
    """Score a file of raw rows, or list items for its users, into a Parquet file, which appears when it is whole.

    Raises:
        ConfigError: a bundle that lists items is not told for whom.
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
    job = _job(run, bundle, source)
    if not run.config.overwrite and is_done(target, job.origin()):
        logger.info("predict: unchanged, nothing to do (%s)", target)
        return
    with no_space_told("predict", target):
        rows = predict(job, target)
    told = "".join(f"; {count} {kind}" for kind, count in sorted(job.told.items()))
    logger.info("scored %d rows of %s with %s into %s%s", rows, source, bundle, target, told)


def _job(run: Run, bundle: Path, source: Path) -> Job:
    config = run.config.predict
    if lists_items(bundle):
        if not config.input:
            raise ConfigError(
                "predict.input is empty, and this bundle lists items: name a file with a column of users, and, for "
                "those that training never met, of what each has met. Test users' lists are in evaluate/lists.parquet."
            )
        return list_job(bundle, source, config)
    manifest = BundleManifest.read(bundle)
    if not config.input:
        manifest.check_schema(Manifest.read(run.stage("ingest")).schema)
    dataset = run.config.dataset
    return Job(
        source=source,
        model=manifest.model_path(bundle, config.row_type),
        schema=manifest.schema,
        config=config,
        labels=manifest.labels,
        joins=dataset.joins() if isinstance(dataset, TableDataset) else (),
    )


main = stage_main(work)

if __name__ == "__main__":
    main()
