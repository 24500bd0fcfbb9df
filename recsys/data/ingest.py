"""Raw rows to a dataset folder: statistics of train in one pass, encoding in a second, rows never all in memory.

The folder: `manifest.json`, `{train,validation,test}/part-*.parquet`, `vocabulary/<feature>.parquet`, and
`raw_sample.parquet`, the first raw test rows; `rejected/part-*.parquet` if rows were left out. Equal input, config and
seed give equal bytes.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from recsys.core.errors import ConfigError, DataError
from recsys.core.jsonable import from_json
from recsys.core.manifest import Manifest, Split
from recsys.core.progress import ProgressBar
from recsys.data.dataset import SPLIT_NAMES, Dataset, RawTable, Shard
from recsys.data.encoder import FeatureEncoder
from recsys.data.faults import Rejected
from recsys.data.fingerprint import file_fingerprint, fingerprint_of
from recsys.data.fitting import Fit, merged_fit
from recsys.data.launch import Launcher, Task, launched
from recsys.data.passes import ENCODE, FIT, Passes
from recsys.data.raw import warn_of_unknown
from recsys.data.splits import check_splits, split_assigner
from recsys.data.state import State
from recsys.data.writer import Part, split_of

logger = logging.getLogger(__name__)

RAW_SAMPLE_NAME = "raw_sample.parquet"
RAW_SAMPLE_ROWS = 20_000


@dataclass(frozen=True, kw_only=True)
class IngestOptions:
    """How to ingest; only `seed` and `max_rejected` change which rows, ids or splits come out."""

    seed: int = 2021  # of the split and of generated rows
    rows_per_file: int = 131_072  # raw rows of a shard, of which every split gets a file: all that a kill loses
    chunk_rows: int = 65_536  # raw rows in memory at a time
    max_rejected: float = 0.0  # share of rows with faults that may be left out; 0 refuses the first one
    launcher: Launcher = Launcher.PROCESS  # who works on shards
    num_workers: int = 0  # of RAY: tasks at a time; 0: as many as the cluster has CPUs
    counts_mib: int = 1024  # memory that adding up the shards' counts of keys may take, beside the vocabularies

    def __post_init__(self) -> None:
        if not 0 <= self.max_rejected < 1:
            raise ConfigError(f"ingest.max_rejected={self.max_rejected}: must be at least 0 and less than 1.")
        if self.num_workers < 0:
            raise ConfigError(f"ingest.num_workers={self.num_workers}: must be 0 or more.")
        for name in ("rows_per_file", "chunk_rows", "counts_mib"):
            if getattr(self, name) < 1:
                raise ConfigError(f"ingest.{name}={getattr(self, name)}: must be 1 or more.")


def ingest(dataset: Dataset, folder: Path, *, options: IngestOptions) -> Manifest:
    """Encode a data set into `folder`, which is empty or holds an interrupted ingest: of the same rows it goes on.

    Raises:
        DataError: input is missing, damaged or of the wrong type, or a split cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    watch = _Watch()
    watch.add(dataset.inputs())  # a data set may read all of them, and make rows of them, before they are opened here
    table = dataset.open(folder, max_rejected=options.max_rejected)
    watch.add([*(file.path for file in table.files), *table.beside])
    fingerprint = input_fingerprint(table, seed=options.seed)
    state = State(folder, fingerprint_of([fingerprint, options.rows_per_file, options.max_rejected]))
    if table.rejected:  # not before: a state that begins anew clears the folder
        table.rejected.write_all()
        table.rejected.log()
    run = _Run(table, folder, options, state)
    fit = run.fit()
    splits = run.encode(FeatureEncoder(table.schema, fit.numeric, fit.keys, fit.bound_tensors()))
    if watch.changed():
        state.drop()
        raise _changed(table)
    num_rejected = run.rejected.count + (table.rejected.count if table.rejected else 0)
    manifest = _manifest(table, fit, splits, fingerprint=fingerprint, num_rejected=num_rejected)
    manifest.write(folder)
    state.drop()
    logger.info("ingested %s: %s rows", table.name, {name: split.num_rows for name, split in splits.items()})
    return manifest


def _manifest(table: RawTable, fit: Fit, splits: dict[str, Split], *, fingerprint: str, num_rejected: int) -> Manifest:
    return Manifest(
        dataset=table.name,
        schema=table.schema,
        splits=splits,
        numeric=fit.numeric,
        categorical=fit.categorical,
        fingerprint=fingerprint,
        bounds=fit.bounds,
        num_rejected=num_rejected,
        label=fit.label,
    )


def input_fingerprint(table: RawTable, *, seed: int) -> str:
    """Fingerprint of the raw input, the schema, what is joined, the split rule and the seed."""
    known = {path: file_fingerprint(path) for path in {*(file.path for file in table.files), *table.beside}}
    files = [[known[file.path], file.split or ""] for file in table.files]
    beside = [[*join.rule, *(known[path] for path in join.paths)] for join in table.joins]
    return fingerprint_of([files, *beside, table.schema, table.split, seed])


class _Watch:
    """Notices when files change, by what changes with their bytes: they are not read again."""

    def __init__(self) -> None:
        self._versions: dict[Path, tuple[int, int, int]] = {}

    def add(self, paths: Iterable[Path]) -> None:
        """Remember files as they are now; those that are not there are somebody else's to tell."""
        self._versions |= {path: self._version(path) for path in paths if path.is_file()}

    def changed(self) -> bool:
        """True if one is not what it was."""
        return any(not path.is_file() or self._version(path) != known for path, known in self._versions.items())

    @staticmethod
    def _version(path: Path) -> tuple[int, int, int]:
        found = path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns


def _changed(table: RawTable) -> DataError:
    return DataError(f"an input of data set {table.name!r} changed while it was read. Run ingest again.")


class _Run:
    """The two passes over one table, shard by shard."""

    def __init__(self, table: RawTable, folder: Path, options: IngestOptions, state: State) -> None:
        self._table, self._folder, self._options, self._state = table, folder, options, state
        table.check_kept()
        self._shards = table.shards(options.rows_per_file)
        self._num_rows = sum(shard.num_rows for shard in self._shards)
        strict = options.max_rejected == 0
        self._passes = Passes(
            table=table,
            folder=folder,
            state=state,
            assign=split_assigner(table, self._shards, seed=options.seed, chunk_rows=options.chunk_rows, strict=strict),
            num_rows=self._num_rows,
            chunk_rows=options.chunk_rows,
            max_rejected=options.max_rejected,
        )
        self.rejected = Rejected(
            folder, num_rows=self._num_rows, limit=options.max_rejected, done=state.done(FIT, len(self._shards))
        )

    def _do(self, name: str, task: Task, description: str) -> Iterator[tuple[int, pl.DataFrame]]:
        """Work on every shard that a pass is not done with."""
        done = self._state.done(name, len(self._shards))
        left = [shard for shard in self._shards if shard.number not in done]
        with ProgressBar(description, total=self._num_rows) as progress:
            progress.skip(sum(self._shards[number].num_rows for number in done))
            for number, rows in launched(task, left, self._options.launcher, self._options.num_workers):
                yield number, rows
                progress.advance(self._shards[number].num_rows)
        if len(self._state.done(name, len(self._shards))) < len(self._shards):
            raise _changed(self._table)

    def fit(self) -> Fit:
        """Statistics and vocabularies of the training rows; writes the vocabularies."""
        for number, rows in self._do(FIT, self._passes.fit, "statistics"):
            self.rejected.add(number, rows)
        self.rejected.log()
        stems = [self._state.stem(FIT, shard.number) for shard in self._shards]
        memory_bytes = self._options.counts_mib << 20
        fit = merged_fit(self._table.schema, stems, self._folder, memory_bytes=memory_bytes)
        warn_of_unknown(fit.unknown, self._num_rows)
        check_splits(self._table, fit.label_counts, fit.label)
        return fit

    def encode(self, encoder: FeatureEncoder) -> dict[str, Split]:
        """Write every split's files and the sample of raw rows."""
        for _ in self._do(ENCODE, partial(self._passes.encode, encoder=encoder), "encoding"):
            pass
        found = [self._parts_of(shard) for shard in self._shards]
        self._write_sample(
            [shard for shard, parts in zip(self._shards, found, strict=True) if SPLIT_NAMES[-1] in parts]
        )
        return {name: split_of(parts[name] for parts in found if name in parts) for name in SPLIT_NAMES}

    def _parts_of(self, shard: Shard) -> dict[str, Part]:
        found = json.loads(self._state.stem(ENCODE, shard.number).with_suffix(".json").read_text())
        return {split: from_json(Part, part) for split, part in found.items()}

    def _write_sample(self, tested: Sequence[Shard]) -> None:
        """Write the first raw test rows, which lie in the shards `tested`."""
        sample: list[pl.DataFrame] = []
        missing = RAW_SAMPLE_ROWS
        # Without test rows an empty sample, which has the columns all the same.
        first, last = (tested[0].number, tested[-1].number) if tested else (0, 0)
        for chunk in self._passes.chunks(self._shards[first : last + 1]):
            test = pl.Series((self._passes.assign(chunk) == len(SPLIT_NAMES) - 1).numpy())
            sample.append(chunk.frame.filter(test).head(missing))
            missing -= sample[-1].height
            if not missing:
                break
        pl.concat(sample, rechunk=True).write_parquet(self._folder / RAW_SAMPLE_NAME, statistics=False)
