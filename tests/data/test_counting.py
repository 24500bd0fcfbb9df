"""Counts that do not fit into memory are added up in ranges of keys, and nobody can tell from what comes out."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.core.schema import CategoricalFeature, IdEncoding, KeyType
from recsys.data.counting import COUNTS, Ranking, counts_by_range
from recsys.data.dataset import SplitConfig, SplitMethod
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.table import FileKind, TableDataset
from tests.data.test_ingest import files_of

ITEM = CategoricalFeature(name="item", key_type=KeyType.INTEGER)
FORMS = {
    "all": ITEM,
    "frequent": replace(ITEM, min_count=3),
    "first": replace(ITEM, max_size=40, num_oov=7),
    "hashed": replace(ITEM, encoding=IdEncoding.HASH),
}


def write_shards(folder: Path, seed: int, num_shards: int = 6) -> tuple[list[Path], pl.DataFrame]:
    """Files as shards leave them, and what they hold of `item`; keys cluster, and lie at both ends of 64 bits."""
    generator, paths, every = np.random.default_rng(seed), [], []
    for number in range(num_shards):
        near = np.unique(generator.integers(-20, 300, 90))
        ends = [-(2**63), 2**63 - 1] if number % 2 else [-(2**63) + number]
        keys = np.unique(np.concatenate([near, np.array(ends, dtype=np.int64)]))
        counts = pl.DataFrame({"key": keys, "count": generator.zipf(1.6, keys.size).clip(1, 10**12)}, schema=COUNTS)
        other = pl.DataFrame({"key": [1, 2, 3], "count": [9, 9, 9]}, schema=COUNTS)
        frames = [frame.select(pl.lit(of).alias("of"), pl.all()) for of, frame in (("item", counts), ("user", other))]
        paths.append(folder / f"{seed}-{number}.parquet")
        pl.concat(frames).write_parquet(paths[-1], row_group_size=16)
        every.append(counts)
    return paths, pl.concat(every)


@pytest.mark.parametrize("max_rows", [1, 2, 7, 50, 200, 10_000])
@pytest.mark.parametrize("seed", range(3))
def test_ranges_hold_every_key_once_and_few_rows(seed: int, max_rows: int, tmp_path: Path) -> None:
    paths, counts = write_shards(tmp_path, seed)
    parts = list(counts_by_range("item", paths, num_rows=counts.height, max_rows=max_rows))
    whole = counts.group_by("key").agg(pl.col("count").sum()).sort("key")
    assert pl.concat(parts).sort("key").equals(whole)
    by_key = counts.group_by("key").len()
    for part in parts:
        rows = int(by_key.filter(pl.col("key").is_in(part["key"].implode()))["len"].sum())
        assert rows <= max(max_rows, max_rows // 2 + 2 * len(paths))


@pytest.mark.parametrize("form", FORMS)
def test_a_vocabulary_does_not_tell_in_how_many_parts_it_was_counted(form: str, tmp_path: Path) -> None:
    paths, counts = write_shards(tmp_path, seed=9)
    found = []
    for max_rows in (1, 3, 64, 10_000):
        ranking = Ranking([FORMS[form]])
        for part in counts_by_range("item", paths, num_rows=counts.height, max_rows=max_rows):
            ranking.update(part)
        found.append(ranking.finish({"item": 1}))
    for vocabulary, statistics in found:
        assert vocabulary.equals(found[0][0]) and statistics == found[0][1]
    check(form, counts, *found[-1][1].values(), vocabulary=found[-1][0])


def check(form: str, counts: pl.DataFrame, known: object, *, vocabulary: pl.DataFrame) -> None:
    """Against plain Python."""
    feature, totals = FORMS[form], dict[int, int]()
    for key, count in counts.iter_rows():
        totals[key] = totals.get(key, 0) + count
    ranked = sorted(totals.items(), key=lambda each: (-each[1], each[0]))
    kept = [pair for pair in ranked if pair[1] >= feature.min_count][: feature.max_size or None]
    assert vocabulary.rows() == ([] if form == "hashed" else kept)
    left = sum(totals.values()) - sum(count for _, count in kept)
    ids = [count for _, count in kept] + [left // feature.num_oov] * (feature.num_oov - 1)
    octaves = [sum(ids[2**k - 1 : 2 ** (k + 1) - 1]) for k in range(len(ids).bit_length())]
    assert (known.num_keys, known.oov_count, list(known.octave_counts)) == (len(totals), left, octaves)  # type: ignore[attr-defined]


def test_no_frequent_key_is_refused(tmp_path: Path) -> None:
    paths, counts = write_shards(tmp_path, seed=1)
    ranking = Ranking([replace(ITEM, min_count=10**15)])
    for part in counts_by_range("item", paths, num_rows=counts.height, max_rows=30):
        ranking.update(part)
    most = counts.group_by("key").agg(pl.col("count").sum())["count"].to_numpy().max()
    with pytest.raises(DataError, match=rf"no key occurs min_count=.*most frequent one occurs {most} times"):
        ranking.finish({"item": 1})


ROWS, OPTIONS = 60_000, IngestOptions(rows_per_file=10_000, counts_mib=1)
SCRIPT = """
import sys
from pathlib import Path
from tests.data.test_counting import OPTIONS, many_keys
from recsys.data.ingest import ingest
ingest(many_keys(Path(sys.argv[1])), Path(sys.argv[2]), options=OPTIONS)
"""


def many_keys(path: Path) -> TableDataset:
    return TableDataset(
        files=(str(path),),
        kind=FileKind.PARQUET,
        label="y",
        categorical=(ITEM, CategoricalFeature(name="word", min_count=2)),
        split=SplitConfig(method=SplitMethod.HASH),
    )


def test_an_ingest_of_little_memory_is_byte_for_byte_the_same(tmp_path: Path) -> None:
    """48 k training rows of other keys on almost each; 1 MiB is for 13 k. Also of one thread, killed once."""
    rows = pl.int_range(ROWS, eager=True)
    frame = pl.DataFrame(
        {"y": rows % 3 % 2, "item": rows * 7919 % 50_021 - 100, "word": (rows % 29_989).cast(pl.String)}
    )
    frame.write_parquet(tmp_path / "raw.parquet")
    ingest(many_keys(tmp_path / "raw.parquet"), tmp_path / "much", options=replace(OPTIONS, counts_mib=1024))
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path / "raw.parquet"), str(tmp_path / "little")]
    environment = {**os.environ, "POLARS_MAX_THREADS": "1"}
    process = subprocess.Popen(command, env=environment)
    while process.poll() is None and not (tmp_path / "little" / "vocabulary" / "item.parquet").exists():
        time.sleep(0.002)
    assert process.poll() is None, "the ingest ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command, check=True, env=environment)
    assert files_of(tmp_path / "little") == files_of(tmp_path / "much")
