"""Event logs to rows of a click model: a target item, and what its user did before, newest first.

A row: `label`, user, item, the item's attributes, and lists as long as one another: `hist_<item>` and
`hist_<attribute>`, which share the ids of the item's own columns, and `hist_gap`, the bucket of the time from that
event to the target (0 for none, else floor(log2) + 1). User and time are kept beside the predictions.

* The past only: a history holds what comes before its target in the order of events (`recsys.data.events`), so nothing
  later can change it. At one time of one user the order is that of the files.
* Newest first, because an encoder keeps the first values of a list: of a longer history at serving it loses the oldest.
* A negative has the history, user and time of its positive, and an item that the user never met in the whole log.
* A target is its user's first event with its item, unless `repeated_targets`: an item seen before tells by its own
  history that it is no negative, and a model learns that rule. In histories repeated items stay.
* Rows lie bucket by bucket of users (`recsys.data.events`), in each by time. What a row holds does not depend on the
  buckets.
* LEAVE_ONE_OUT compares with published numbers, but train events of one user may be later than test events of another.
  CHRONOLOGICAL has no such events, but its negatives, too, are items that the user does not meet later.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import ConfigError, DataError
from recsys.core.progress import ProgressBar
from recsys.core.schema import CategoricalFeature, KeyType, Schema
from recsys.core.specs import Pooling
from recsys.data.dataset import SPLIT_NAMES, RawFile, RawTable, SplitConfig, SplitMethod
from recsys.data.event_log import STEM, EventLog, num_rows_of
from recsys.data.events import FOLDER, REJECTED_NAME, Events, EventStore
from recsys.data.faults import Rejected
from recsys.data.histories import (
    SplitTargets,
    Targets,
    TargetSplit,
    choose_targets,
    chronological_cuts,
    rows_of,
    split_codes,
    user_places,
)
from recsys.data.made import Made, Piece, put_frame
from recsys.data.negatives import NegativeMethod, Pool, draw_negatives, met_pairs
from recsys.data.readers import ParquetReader
from recsys.data.side import SideFile, with_side
from recsys.ops.hashing import salt_for

logger = logging.getLogger(__name__)

ROWS_PER_FILE, VALUES_PER_FILE = 65_536, 1 << 21  # values of one list column, at most
PLACE = "place"
"""Name of the time column of a log without times: how many events of its user come before."""


@dataclass(frozen=True, kw_only=True)
class BehaviourDataset:
    """A log of positive events; negatives are sampled."""

    log: EventLog
    name: str = "behaviours"
    side: SideFile = field(default_factory=SideFile)
    max_length: int = 50  # events of a history, the most recent ones
    min_history: int = 1  # events before a target; earlier ones are history only
    target_stride: int = 1  # train on every so many events of a user, counted back from the last
    repeated_targets: bool = False  # also predict items met before, as DARE does; negatives never are such items
    num_negatives: int = 1  # for each positive
    negatives: NegativeMethod = NegativeMethod.POPULARITY
    min_count: int = 1  # items and attributes that train's rows name less often, as target or past, are unknown
    seed: int = 2021  # of the negatives
    split: SplitTargets = field(default_factory=SplitTargets)

    def __post_init__(self) -> None:
        least = {"max_length": 1, "min_history": 0, "target_stride": 1, "num_negatives": 1, "min_count": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ConfigError(f"dataset.{name}={getattr(self, name)}: must be {lowest} or more.")
        self._check_columns()
        if self.split.method is TargetSplit.CHRONOLOGICAL and not self.log.time:
            raise ConfigError(
                "dataset.split.method=CHRONOLOGICAL with dataset.log.time='': without times the events of different "
                "users have no order. Name the column of times, or choose leave_one_out."
            )

    def _check_columns(self) -> None:
        """No two columns of a row have one name."""
        log, keys = self.log, (self.log.item, *self.log.attributes, *self.side.attributes)
        columns = ["label", log.user, log.time or PLACE, *keys, *(f"hist_{name}" for name in keys), "hist_gap"]
        if repeated := sorted({name for name in columns if columns.count(name) > 1}):
            raise ConfigError(
                f"dataset: rows would have more than one column {', '.join(map(repr, repeated))}; they hold {columns}, "
                "named by user, item, time and attributes of dataset.log and dataset.side. Rename it in the files."
            )

    def inputs(self) -> tuple[Path, ...]:
        """The log's files and the side file."""
        return *self.log.paths, *self.side.paths

    def open(self, folder: Path, *, max_rejected: float = 0.0) -> RawTable:
        """Write the rows to `folder/raw` as Parquet and return them; memory holds a bucket of events, and all items.

        After an interruption it goes on: with the log from its start unless all of it was read, else behind the last
        bucket or file that is whole.

        Raises:
            DataError: the log or the side file cannot be used, or a split would have no rows.
        """
        made = Made(folder, self, max_rejected=max_rejected)  # before the log is read, which may change meanwhile
        num_rows = made.once("num_rows", partial(num_rows_of, self.log))
        rejected = Rejected(folder, num_rows=num_rows, limit=max_rejected, stem=STEM)
        store = EventStore(made, self.log)
        files = made.once("files", partial(self._make, made, store, rejected, num_rows))
        store.drop()
        rejected.load(made.folder / REJECTED_NAME)
        return RawTable(
            name=self.name,
            schema=self.schema(),
            files=tuple(RawFile(path=made.folder / name, split=split) for name, split in files),
            reader=ParquetReader(),
            split=SplitConfig(method=SplitMethod.GIVEN),
            rejected=rejected,
        )

    def _make(self, made: Made, store: EventStore, rejected: Rejected, num_rows: int) -> list[list[str]]:
        """Write the files of rows; their names and splits, split after split."""
        store.fill(rejected, num_rows=num_rows)
        items = with_side(store.items(), self.side, self.log)
        logger.info(
            "%d events of %d users and %d items; left out %d repeated ones (same user, item and time)",
            *(store.num_events, store.num_users, items.height, store.num_repeated),
        )
        rows = _Rows(self, made, store, items)
        files = made.files(rows.pieces(), num_rows=rows.num_rows)
        return [[file.path.name, name] for name in SPLIT_NAMES for file in files if file.split == name]

    def schema(self) -> Schema:
        """The schema of the rows."""
        log, key_type = self.log, self.log.key_type
        user = CategoricalFeature(name=log.user, key_type=key_type)
        names = (log.item, *log.attributes, *self.side.attributes)
        owners = {name: self.side.attributes[0] for name in self.side.attributes[1:] if self.side.is_json}
        target = [
            CategoricalFeature(
                name=name,
                key_type=key_type,
                min_count=1 if name in owners else self.min_count,
                vocabulary=owners.get(name, ""),
            )
            for name in names
        ]
        past = [self._past(f"hist_{name}", key_type, owners.get(name, name)) for name in names]
        gap = self._past("hist_gap", KeyType.INTEGER, "")
        return Schema(label="label", categorical=(user, *target, *past, gap), passthrough=(log.user, log.time or PLACE))

    def _past(self, name: str, key_type: KeyType, vocabulary: str) -> CategoricalFeature:
        return CategoricalFeature(
            name=name,
            key_type=key_type,
            multi_valued=True,
            max_length=self.max_length,
            pooling=Pooling.MEAN,
            vocabulary=vocabulary,
        )


@dataclass(frozen=True, kw_only=True)
class _Bucket:
    """Events of some users, and what is to be made of them: `chosen`, indices of targets by split."""

    events: Events
    chosen: list[Tensor]
    places: Tensor
    met: Tensor


class _Rows:
    """The rows of a log in two sweeps over its buckets: the first counts what is predicted, the second makes rows."""

    def __init__(self, dataset: BehaviourDataset, made: Made, store: EventStore, items: pl.DataFrame) -> None:
        self._dataset, self._store, self._items = dataset, store, items
        self._kept: tuple[int, _Bucket] | None = None
        split = dataset.split
        chronological = split.method is TargetSplit.CHRONOLOGICAL
        self._cuts = chronological_cuts(store.times, store.num_events, split) if chronological else None
        path = made.folder / FOLDER / "targets.parquet"
        self._sizes: list[list[int]] = made.once(f"{FOLDER}/targets", partial(self._count, path))
        counts = pl.read_parquet(path, glob=False)
        self._pools = {name: Pool.of(counts[name].to_torch(), dataset.negatives) for name in SPLIT_NAMES}

    @property
    def num_rows(self) -> int:
        """Rows of all splits."""
        return sum(map(sum, self._sizes)) * (1 + self._dataset.num_negatives)

    def pieces(self) -> Iterator[Piece]:
        """All rows: bucket by bucket, in each split by split, in each by time."""
        config = self._dataset
        rows_at_once = min(ROWS_PER_FILE, VALUES_PER_FILE // config.max_length)
        at_once = max(rows_at_once // (1 + config.num_negatives), 1)
        for bucket, sizes in enumerate(self._sizes):
            for split, size in zip(SPLIT_NAMES, sizes, strict=True):
                for part, start in enumerate(range(0, size, at_once)):
                    stop = min(start + at_once, size)
                    yield Piece(
                        stem=f"{split}-{bucket:05d}-{part:05d}",
                        split=split,
                        num_rows=(stop - start) * (1 + config.num_negatives),
                        make=partial(self._frame, bucket, split, slice(start, stop)),
                    )

    def _count(self, path: Path) -> list[list[int]]:
        """Write how often each item is a target of each split; targets by bucket and split."""
        counts = torch.zeros(len(SPLIT_NAMES), self._items.height, dtype=torch.int64)
        sizes = []
        with ProgressBar("finding targets", total=self._store.num_events, unit="events") as progress:
            for bucket in range(self._store.num_buckets):
                events, chosen = self._targets(bucket)
                for of_split, index in zip(counts, chosen, strict=True):
                    of_split += torch.bincount(events.item[index], minlength=self._items.height)
                sizes.append([index.numel() for index in chosen])
                progress.advance(events.item.numel())
        for name, found in zip(SPLIT_NAMES, counts.sum(1).tolist(), strict=True):
            if not found:
                raise self._without_targets(name)
        put_frame(path, pl.DataFrame(counts.numpy().T, schema=list(SPLIT_NAMES)))
        return sizes

    def _without_targets(self, split: str) -> DataError:
        new = "" if self._dataset.repeated_targets else " and an item new to its user"
        return DataError(
            f"the {split} split has no event with {self._dataset.min_history} event(s) of its user before it{new}. "
            "Give more events, or lower dataset.min_history."
        )

    def _targets(self, bucket: int) -> tuple[Events, list[Tensor]]:
        config, events = self._dataset, self._store.read(bucket, self._items)
        codes = split_codes(events, self._cuts)
        chosen = choose_targets(
            events, codes, min_history=config.min_history, stride=config.target_stride, repeats=config.repeated_targets
        )
        return events, chosen

    def _bucket(self, number: int) -> _Bucket:
        if self._kept is None or self._kept[0] != number:
            self._kept = None  # before the next one is read: two would be twice the memory
            events, chosen = self._targets(number)
            found = _Bucket(events=events, chosen=chosen, places=user_places(events), met=met_pairs(events))
            self._kept = (number, found)
        return self._kept[1]

    def _frame(self, bucket: int, split: str, part: slice) -> pl.DataFrame:
        """The rows of some targets of a bucket and a split."""
        config, found = self._dataset, self._bucket(bucket)
        event = found.chosen[SPLIT_NAMES.index(split)][part]
        places = found.places[event]
        salt, num = salt_for(split, 0, config.seed), config.num_negatives
        negatives = draw_negatives(found.events, event, places, found.met, self._pools[split], num=num, salt=salt)
        names = {"user": config.log.user, "item": config.log.item, "time": config.log.time or PLACE}
        return rows_of(found.events, Targets(event, places, negatives), names, max_length=config.max_length)
