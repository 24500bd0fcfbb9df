"""`ParquetLoader`: every row once an epoch, alike for any number of ranks, resumable, shuffled, refusing bad files."""

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.batch import Batch
from recsys.core.errors import ConfigError, DataError
from recsys.core.manifest import CategoricalStatistics, Manifest, NumericStatistics, Split
from recsys.core.schema import CategoricalFeature, NumericFeature, Schema
from recsys.data.loader import LoaderOptions, ParquetLoader
from recsys.data.prefetch import prefetched

FILE_ROWS = (30, 50, 10, 40, 27)
NUM_ROWS = sum(FILE_ROWS)
NUM_IDS = 1000


@pytest.fixture
def encoded(tmp_path: Path) -> Path:
    """A dataset folder whose columns tell the row: `x` is it, `a` it + 1, `tags` (row % 4) times it, `b` 999 - it."""
    names, start = [f"train/part-{i:05d}.parquet" for i in range(len(FILE_ROWS))], 0
    (tmp_path / "train").mkdir()
    for name, size in zip(names, FILE_ROWS, strict=True):
        rows = list(range(start, start + size))
        columns = {
            "__row__": rows,
            "__label__": pl.Series([row % 2 for row in rows], dtype=pl.Float32),
            "x": pl.Series(rows, dtype=pl.Float32),
            "a": [row + 1 for row in rows],
            "tags": pl.Series([[row] * (row % 4) for row in rows], dtype=pl.List(pl.Int64)),
            "b": [999 - row for row in rows],
        }
        pl.DataFrame(columns).write_parquet(tmp_path / name)
        start += size
    features = (
        CategoricalFeature(name="a"),
        CategoricalFeature(name="tags", multi_valued=True),
        CategoricalFeature(name="b"),
    )
    known = CategoricalStatistics(num_embeddings=NUM_IDS, num_keys=999, oov_count=0, octave_counts=(), max_length=3)
    Manifest(
        dataset="rows",
        schema=Schema(label="y", numeric=(NumericFeature(name="x"),), categorical=features),
        splits={"train": Split(files=tuple(names), file_rows=FILE_ROWS, num_positive=78)},
        numeric={"x": NumericStatistics(mean=0.0, std=1.0, num_missing=0)},
        categorical={feature.name: known for feature in features},
        fingerprint="0",
    ).write(tmp_path)
    return tmp_path


def rows_of(batch: Batch) -> list[int]:
    """Rows of a batch, after checking that all its columns tell the same."""
    rows = batch.dense[: batch.labels.numel(), 0].long()
    assert batch.sparse.keys() == ["a", "tags", "b"] and batch.sparse.stride() == len(batch.dense)
    lengths = batch.sparse.lengths().view(3, -1)
    assert not lengths[:, len(rows) :].any() and not batch.dense[len(rows) :].any(), "padding holds nothing"
    sparse = KeyedJaggedTensor(
        keys=batch.sparse.keys(), values=batch.sparse.values(), lengths=lengths[:, : len(rows)].reshape(-1)
    ).to_dict()
    assert (
        sparse["a"].values().tolist() == (rows + 1).tolist() and sparse["b"].values().tolist() == (999 - rows).tolist()
    )
    assert sparse["tags"].lengths().tolist() == (rows % 4).tolist()
    assert sparse["tags"].values().tolist() == torch.repeat_interleave(rows, rows % 4).tolist()
    assert batch.labels.tolist() == (rows % 2).tolist()
    return [int(row) for row in rows]


def epoch_of(loader: ParquetLoader, epoch: int = 0, start: int = 0) -> list[list[int]]:
    return [rows_of(batch) for batch in loader.epoch(epoch, start)]


def options(**changes: object) -> LoaderOptions:
    return LoaderOptions(**{"batch_size": 12, "shuffle_rows": 60, "seed": 5, "drop_last": False, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("shuffle_rows", [1, 60, 10_000])
@pytest.mark.parametrize("prefetch_batches", [0, 3])
def test_an_epoch_holds_every_row_once(encoded: Path, shuffle: bool, shuffle_rows: int, prefetch_batches: int) -> None:
    loader = ParquetLoader(
        encoded, "train", options(shuffle=shuffle, shuffle_rows=shuffle_rows, prefetch_batches=prefetch_batches)
    )
    batches = epoch_of(loader, 3)
    rows = [row for batch in batches for row in batch]
    assert len(batches) == loader.num_batches == (13 if shuffle else 14) and loader.num_rows == NUM_ROWS
    assert [len(batch) for batch in batches] == ([12] * 12 + [13] if shuffle else [12] * 13 + [1])
    assert [loader.rows_of(batch) for batch in range(len(batches))] == [len(batch) for batch in batches]
    assert sorted(rows) == list(range(NUM_ROWS)) and (rows == sorted(rows)) == (not shuffle)


def test_drop_last_drops_the_short_batch(encoded: Path) -> None:
    batches = epoch_of(ParquetLoader(encoded, "train", options(drop_last=True)))
    assert [len(batch) for batch in batches] == [12] * 13


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("batch_size", [12, 24])  # 157 rows leave a tail of 1, which joins, and of 13, which does not
@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_together_see_what_one_process_sees(
    encoded: Path, world_size: int, batch_size: int, drop_last: bool
) -> None:
    chosen = options(drop_last=drop_last, batch_size=batch_size)
    single = epoch_of(ParquetLoader(encoded, "train", chosen), 1)
    ranks = [
        epoch_of(ParquetLoader(encoded, "train", chosen, rank=rank, world_size=world_size), 1)
        for rank in range(world_size)
    ]
    assert [list(itertools.chain(*parts)) for parts in zip(*ranks, strict=True)] == single


def with_rows(folder: Path, num_rows: int) -> None:
    """Keep only the first rows of the first file."""
    path = folder / "train" / "part-00000.parquet"
    pl.read_parquet(path).head(num_rows).write_parquet(path)
    manifest = Manifest.read(folder)
    split = Split(files=manifest.splits["train"].files[:1], file_rows=(num_rows,), num_positive=num_rows // 2)
    replace(manifest, splits={"train": split}).write(folder)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("num_rows", [23, 18, 17, 13, 12, 8, 7, 5, 3, 2, 1])
def test_no_share_is_too_short_for_a_model(encoded: Path, shuffle: bool, num_rows: int) -> None:
    """Two rows of each rank where it trains (batch norm), one where it evaluates, unless the split has less."""
    with_rows(encoded, num_rows)
    for world_size, per_rank in itertools.product([w for w in (1, 2, 3) if w <= num_rows], (2, 3, 5)):
        chosen = options(shuffle=shuffle, batch_size=per_rank * world_size, prefetch_batches=0)
        loaders = [
            ParquetLoader(encoded, "train", chosen, rank=rank, world_size=world_size) for rank in range(world_size)
        ]
        shares = list(zip(*(epoch_of(loader) for loader in loaders), strict=True))
        totals = [sum(map(len, parts)) for parts in shares]
        assert sorted(row for parts in shares for part in parts for row in part) == list(range(num_rows))
        assert totals == [loaders[0].rows_of(batch) for batch in range(loaders[0].num_batches)]
        assert all(total == chosen.batch_size for total in totals[:-1])
        for batches in zip(*(loader.epoch(0) for loader in loaders), strict=True):
            assert len({len(batch.dense) for batch in batches}) == 1, "a sharded look-up needs equal shares"
        shortest = min(len(part) for parts in shares for part in parts)
        assert shortest >= min(2 if shuffle else 1, num_rows // world_size)


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_tail_joins_or_not_at_the_border(encoded: Path, shuffle: bool) -> None:
    """Batches of 12 on two ranks: a tail of 3 is too short to train on (4 is not), a tail of 1 to evaluate."""
    for tail, joins in {4: False, 3: shuffle, 2: shuffle, 1: True}.items():
        with_rows(encoded, 12 + tail)
        loader = ParquetLoader(encoded, "train", options(shuffle=shuffle), world_size=2)
        assert [loader.rows_of(i) for i in range(loader.num_batches)] == ([12 + tail] if joins else [12, tail])


@pytest.mark.parametrize("start", range(15))
def test_resuming_continues_exactly(encoded: Path, start: int) -> None:
    whole = epoch_of(ParquetLoader(encoded, "train", options()), 2)
    assert epoch_of(ParquetLoader(encoded, "train", options()), 2, start) == whole[start:]


def test_resuming_reads_no_earlier_window(encoded: Path) -> None:
    for name in Manifest.read(encoded).splits["train"].files[:3]:  # 90 rows
        (encoded / name).unlink()
    loader = ParquetLoader(encoded, "train", options(shuffle=False))
    assert epoch_of(loader, 0, 8)[0] == list(range(96, 108))
    with pytest.raises(DataError, match=r"part-00000.parquet: not a readable"):
        next(loader.epoch(0))


def test_epochs_and_seeds_differ_and_repeat(encoded: Path) -> None:
    loader = ParquetLoader(encoded, "train", options())
    orders = [epoch_of(loader, 0), epoch_of(loader, 1), epoch_of(ParquetLoader(encoded, "train", options(seed=6)), 0)]
    assert orders[0] != orders[1] and orders[0] != orders[2]
    assert epoch_of(loader, 0) == orders[0]


def test_a_sorted_file_comes_out_shuffled(encoded: Path) -> None:
    """Rank correlation of row and place: over 40 epochs its mean has a standard deviation of about .013."""
    loader = ParquetLoader(encoded, "train", options(shuffle_rows=10_000, prefetch_batches=0))
    place = torch.arange(NUM_ROWS).double()
    totals = []
    for epoch in range(40):
        rows = torch.cat([batch.dense[:, 0] for batch in loader.epoch(epoch)]).double()
        totals.append(float(torch.corrcoef(torch.stack([rows, place]))[0, 1]))
    assert abs(sum(totals) / 40) < 0.05 and max(map(abs, totals)) < 0.35


def test_small_windows_still_mix_files(encoded: Path) -> None:
    loader = ParquetLoader(encoded, "train", options())
    firsts = {epoch_of(loader, epoch)[0][0] // 30 for epoch in range(12)}
    assert len(firsts) > 2  # epochs begin in different files


def test_an_id_outside_the_vocabulary_is_refused(encoded: Path) -> None:
    path = encoded / "train" / "part-00001.parquet"
    frame = pl.read_parquet(path)
    for bad in (-1, NUM_IDS):
        ids = [1] * 49 + [bad]
        frame.with_columns(a=pl.Series(ids)).write_parquet(path)
        with pytest.raises(
            DataError, match=rf"part-00001.parquet, column 'a', value 49: id {bad} lies outside \[0, 1000\)"
        ):
            list(ParquetLoader(encoded, "train", options()).epoch(0))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "not a readable dataset file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "not a readable dataset file"),
        (lambda path: pl.read_parquet(path).drop("a").write_parquet(path), "not a readable dataset file"),
        (lambda path: pl.read_parquet(path).head(3).write_parquet(path), "3 rows, the manifest says 30"),
        (lambda path: _set(path, x=float("nan")), "no finite number"),
        (lambda path: _set(path, a=None), "30 nulls"),
    ],
)
def test_damaged_files_are_refused(encoded: Path, damage: object, message: str) -> None:
    damage(encoded / "train" / "part-00000.parquet")  # type: ignore[operator]
    with pytest.raises(DataError, match=rf"part-00000.parquet.*{message}"):
        list(ParquetLoader(encoded, "train", options()).epoch(0))


def _set(path: Path, **values: float | None) -> None:
    frame = pl.read_parquet(path)
    frame.with_columns(pl.lit(v, dtype=frame.schema[k]).alias(k) for k, v in values.items()).write_parquet(path)


def test_impossible_options_are_refused(encoded: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch_size=12 with 5 processes.*multiple"):
        ParquetLoader(encoded, "train", options(), rank=0, world_size=5)
    with pytest.raises(ConfigError, match=r"batch_size=1000.*only 157 rows"):
        ParquetLoader(encoded, "train", options(batch_size=1000, drop_last=True))
    with pytest.raises(ConfigError, match=r"158 processes.*only 157 rows"):
        ParquetLoader(encoded, "train", options(batch_size=158), rank=0, world_size=158)
    with pytest.raises(DataError, match=r"no rows in split 'test'"):
        ParquetLoader(encoded, "test", options())


def test_the_thread_ends_with_its_consumer(encoded: Path) -> None:
    before = threading.active_count()
    batches = ParquetLoader(encoded, "train", options(prefetch_batches=1)).epoch(0)
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_what_the_thread_raises_reaches_the_consumer() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("lost")

    iterator = prefetched(items, depth=2)
    assert next(iterator) == 1
    with pytest.raises(KeyError, match="lost"):
        next(iterator)


def test_prefetching_is_bounded() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    iterator = prefetched(items, depth=3)
    next(iterator)
    time.sleep(0.2)
    assert len(made) <= 5  # one used, three waiting, one in hand
    iterator.close()  # type: ignore[attr-defined]
