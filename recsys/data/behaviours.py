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
* LEAVE_ONE_OUT compares with published numbers, but train events of one user may be later than test events of another.
  CHRONOLOGICAL has no such events, but its negatives, too, are items that the user does not meet later.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from recsys.core.errors import ConfigError
from recsys.core.schema import CategoricalFeature, KeyType, Schema
from recsys.core.specs import Pooling
from recsys.data.dataset import SPLIT_NAMES, RawFile, RawTable, SplitConfig, SplitMethod
from recsys.data.event_log import EventLog, rejected_of
from recsys.data.events import Events, read_events
from recsys.data.histories import (
    NegativeMethod,
    SplitTargets,
    Targets,
    TargetSplit,
    choose_targets,
    draw_negatives,
    rows_of,
    split_codes,
    user_places,
)
from recsys.data.made import Made, Piece
from recsys.data.readers import ParquetReader
from recsys.data.side import SideFile, with_side
from recsys.ops.hashing import salt_for

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
        if self.split.method is TargetSplit.CHRONOLOGICAL and not self.log.time:
            raise ConfigError(
                "dataset.split.method=CHRONOLOGICAL with dataset.log.time='': without times the events of different "
                "users have no order. Name the column of times, or choose leave_one_out."
            )

    def inputs(self) -> tuple[Path, ...]:
        """The log's files and the side file."""
        return *self.log.paths, *self.side.paths

    def open(self, folder: Path, *, max_rejected: float = 0.0) -> RawTable:
        """Write the rows to `folder/raw` as Parquet and return them; memory holds the events, but not the rows.

        After an interruption the events are read again, and rows that are there are kept.

        Raises:
            DataError: the log or the side file cannot be used, or a split would have no rows.
        """
        made = Made(folder, self, max_rejected=max_rejected)  # before the log is read, which may change meanwhile
        rejected = rejected_of([self.log], folder, max_rejected=max_rejected)
        events = read_events(self.log, rejected)
        items = with_side(events.items, self.side, self.log)
        events = Events(events.user, events.item, events.time, events.users, items)
        codes = split_codes(events, self.split)
        chosen = choose_targets(
            events, codes, min_history=self.min_history, stride=self.target_stride, repeats=self.repeated_targets
        )
        files: list[RawFile] = []
        for split, index in zip(SPLIT_NAMES, chosen, strict=True):
            salt = salt_for(split, 0, self.seed)
            negatives = draw_negatives(events, index, self.negatives, num=self.num_negatives, salt=salt)
            targets = Targets(index, user_places(events)[index], negatives)
            num_rows = len(index) * (1 + self.num_negatives)
            files += made.files(self._pieces(events, targets, split), num_rows=num_rows, split=split)
        return RawTable(
            name=self.name,
            schema=self.schema(),
            files=tuple(files),
            reader=ParquetReader(),
            split=SplitConfig(method=SplitMethod.GIVEN),
            rejected=rejected,
        )

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

    def _pieces(self, events: Events, targets: Targets, split: str) -> Iterator[Piece]:
        names = {"user": self.log.user, "item": self.log.item, "time": self.log.time or PLACE}
        rows_at_once = min(ROWS_PER_FILE, VALUES_PER_FILE // self.max_length)
        at_once = max(rows_at_once // (1 + self.num_negatives), 1)
        for part, some in enumerate(targets.pieces(at_once)):
            make = partial(rows_of, events, some, names, max_length=self.max_length)
            yield Piece(stem=f"{split}-{part:05d}", num_rows=some.negatives.numel() + len(some.event), make=make)
