"""`python -m pipelines.quality`: one page, and JSON, on what the ingested data is like, before any training."""

import json
import logging
from pathlib import Path

import polars as pl

from pipelines import ingest
from pipelines.config import Run
from pipelines.entry import stage_main
from pipelines.plan import surveyed_bytes
from pipelines.predictions import split_files
from pipelines.stage import StageKey, fingerprint, stage
from recsys.core.jsonable import to_json
from recsys.core.manifest import Manifest
from recsys.core.schema import MISSING_KEY, CategoricalFeature, IdEncoding, KeyType
from recsys.data.encoder import vocabulary_path
from recsys.data.ingest import RAW_SAMPLE_NAME
from recsys.data.raw import string_keys
from recsys.evaluate.quality import assess
from recsys.evaluate.quality_page import render_quality

logger = logging.getLogger(__name__)

HEAVY = 5


def work(run: Run) -> None:
    """Write `quality.html` and `quality.json` of the run's data set."""
    ingest.work(run)
    data = run.stage("ingest")
    config = run.part("dataset", "model", "embedding")
    key = StageKey(stage="quality", config=config, inputs={"ingest": fingerprint(data)}, resolved=run.values)
    with stage(run.stage("quality"), key, overwrite=True) as folder:  # made in seconds
        if folder is not None:
            manifest = Manifest.read(data)
            found = assess(
                manifest,
                lambda split, columns: split_files(data, split, columns),
                {feature.name: heavy_values(data, feature) for feature in manifest.schema.categorical},
                surveyed_bytes(run, manifest),
            )
            (folder / "quality.json").write_text(json.dumps(to_json(found), indent=1))
            (folder / "quality.html").write_text(render_quality(found))
    logger.info("%s: quality.html, quality.json", run.stage("quality"))


def heavy_values(data: Path, feature: CategoricalFeature) -> list[tuple[int, str]]:
    """(id, value) of the most frequent ids of a vocabulary, and of the missing value: ""; none where ids are hashed.

    Texts are known by their hash alone; those that the sample of raw rows holds too are told.
    """
    if feature.encoding is IdEncoding.HASH:
        return []
    keys = pl.read_parquet(vocabulary_path(data, feature.vocabulary or feature.name))["key"]
    at = keys.index_of(MISSING_KEY)
    ids = [*range(1, min(HEAVY, len(keys)) + 1), *([] if at is None or at < HEAVY else [at + 1])]
    texts: dict[int, str] = {}
    if feature.key_type is KeyType.STRING and feature.derive.value == "none":
        sample = pl.read_parquet(data / RAW_SAMPLE_NAME, columns=[feature.name])[feature.name]
        values = (sample.explode() if feature.multi_valued else sample).drop_nulls().unique()
        texts = dict(zip(string_keys(values).to_list(), values.to_list(), strict=True))
    chosen = ((i, int(keys[i - 1])) for i in ids)
    return [(i, "" if key == MISSING_KEY else texts.get(key, str(key))) for i, key in chosen]


main = stage_main(work)

if __name__ == "__main__":
    main()
