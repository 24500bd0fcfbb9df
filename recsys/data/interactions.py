"""Implicit feedback: pairs of user and item, ranked against all items. Files in, ids by the common vocabularies out.

* A pair that a file repeats is kept once, and the number is logged: an edge either is there or is not.
* Ids are keys, so that gaps between them cost nothing: only what train holds gets an id, frequent ones first.
* Validation is carved out of train, user by user. Each user and each item keeps at least one train pair, so that both
  have an embedding. Test is never looked at.
* A test pair that train holds already cannot be recommended, because what a user has met is filtered: it is left out.
* Test pairs of an item that train never met stay: no model can find them, and recall says so. Users without train pairs
  cannot be ranked for; evaluation counts them and leaves them out of its means.

Memory grows with the pairs, which are held whole here because training holds them whole too: every model here
propagates over, or draws from, all edges of the graph.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import ConfigError, DataError
from recsys.core.interactions import Interactions
from recsys.core.manifest import Manifest
from recsys.core.schema import CategoricalFeature, Schema
from recsys.data.dataset import SPLIT_NAMES, RawTable, SplitConfig, SplitMethod
from recsys.data.event_log import STEM, EventLog, LogKind, event_frames, num_rows_of
from recsys.data.faults import Faults, Rejected
from recsys.data.made import Made, Piece
from recsys.data.readers import ParquetReader
from recsys.ops.hashing import mix64, salt_for

logger = logging.getLogger(__name__)

LABEL_NAME = "label"
LABEL = pl.lit(1).alias(LABEL_NAME)


@dataclass(frozen=True, kw_only=True)
class InteractionDataset:
    """A published split of implicit feedback: files of train pairs and files of test pairs."""

    train: EventLog
    test: EventLog
    name: str = "interactions"
    validation: float = 0.1  # share of each user's train pairs that chooses the epoch; 0: nothing is held out
    seed: int = 2021  # of validation

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise ConfigError(f"dataset.validation={self.validation}: must be a share of train in [0, 1).")
        columns = [(log.user, log.item, log.key_type) for log in (self.train, self.test)]
        if columns[0] != columns[1]:
            raise ConfigError(
                f"dataset.train has user, item, key_type = {columns[0]}, dataset.test {columns[1]}: a user or an item "
                "needs one name and one type in both. Give both the same."
            )

    def inputs(self) -> tuple[Path, ...]:
        """The files of both logs."""
        return *self.train.paths, *self.test.paths

    def schema(self) -> Schema:
        """User and item, one id each a row."""
        log = self.train
        columns = (CategoricalFeature(name=name, key_type=log.key_type) for name in (log.user, log.item))
        return Schema(label=LABEL_NAME, categorical=tuple(columns))

    def open(self, folder: Path, *, max_rejected: float = 0.0) -> RawTable:
        """Write the pairs of each split to `folder/raw` and return them.

        Raises:
            DataError: a file cannot be used, or there is nothing to train on or to test.
        """
        made = Made(folder, self, max_rejected=max_rejected)
        num_rows = [num_rows_of(log) for log in (self.train, self.test)]
        rejected = Rejected(folder, num_rows=sum(num_rows), limit=max_rejected, stem=STEM)
        train = _read(self.train, "train", rejected, num_rows=num_rows[0], first_file=0)
        test = _read(self.test, "test", rejected, num_rows=num_rows[1], first_file=len(self.train.paths))
        unseen = self._unseen(test, train)
        held_out = self._held_out(train)
        parts = (train.filter(~held_out), train.filter(held_out), unseen)
        pieces = [
            Piece(stem=name, split=name, num_rows=part.height, make=partial(part.with_columns, LABEL))
            for name, part in zip(SPLIT_NAMES, parts, strict=True)
            if part.height
        ]
        return RawTable(
            name=self.name,
            schema=self.schema(),
            files=made.files(pieces, num_rows=sum(part.height for part in parts)),
            reader=ParquetReader(),
            split=SplitConfig(method=SplitMethod.GIVEN),
            only_positives=True,
            rejected=rejected,
        )

    def _unseen(self, test: pl.DataFrame, train: pl.DataFrame) -> pl.DataFrame:
        """Test pairs that train lacks, of which some can be ranked for."""
        user, item, files = self.train.user, self.train.item, ", ".join(self.test.files)
        unseen = test.join(train, on=[user, item], how="anti", maintain_order="left")
        if unseen.height < test.height:
            logger.warning("left out %d test pairs that train holds too", test.height - unseen.height)
        if not unseen.height:
            raise DataError(f"{files}: train holds every test pair. Give other files as dataset.test.")
        known = unseen.join(train, on=user, how="semi")
        if not known.height:
            raise DataError(
                f"{files}: train knows none of the {unseen[user].n_unique()} test users, and a test ranks for known "
                "ones. Give train and test files of one split, with the same ids."
            )
        if cold := unseen.height - known.height:
            logger.warning("%d test pairs are of users that train lacks: no mean has them", cold)
        if lost := known.join(train, on=item, how="anti").height:
            logger.warning("%d test pairs are of items that train lacks: they count as missed", lost)
        return unseen

    def _held_out(self, train: pl.DataFrame) -> pl.Series:
        """Which train pairs are validation."""
        names = (self.train.user, self.train.item)
        codes = [train[name].rank("dense").cast(pl.Int64).to_torch() - 1 for name in names]
        held_out = hold_out(*codes, share=self.validation, salt=salt_for("validation", 0, self.seed))
        if self.validation and not bool(held_out.any()):
            raise DataError(
                f"dataset.validation={self.validation} of each user's train pairs holds out none of {train.height}: "
                "users have too few. Give a larger share, or 0 to train on all."
            )
        return pl.Series(held_out.numpy())


def _read(log: EventLog, split: str, rejected: Rejected, *, num_rows: int, first_file: int) -> pl.DataFrame:
    """Distinct pairs of a log of so many rows, in the order of its files, which are counted from `first_file`."""
    check = partial(_note_negative, log)
    frames = event_frames(log, rejected, num_rows=num_rows, first_file=first_file, check=check)
    parts = [frame.select(log.user, log.item) for frame in frames]
    if not sum(part.height for part in parts):
        behind = f": no line has an item behind its user and {log.separator!r}" if log.kind is LogKind.USERS else ""
        raise DataError(
            f"{', '.join(log.files)}: no interactions{behind}, so the {split} split is empty. Correct dataset.{split}, "
            "or give other files."
        )
    pairs = pl.concat(parts)
    distinct = pairs.unique(maintain_order=True)
    if distinct.height < pairs.height:
        logger.warning("%s: merged %d repeated pairs of user and item", split, pairs.height - distinct.height)
    return distinct


def _note_negative(log: EventLog, frame: pl.DataFrame, faults: Faults) -> None:
    for keys in (frame[log.user], frame[log.item]):
        lowest = keys.list.min() if keys.dtype == pl.List else keys
        if lowest.dtype == pl.Int64:
            way_out = "Correct it, or set key_type: string if signs belong to the ids."
            faults.note(lowest, lowest < 0, f"names an id below 0; ids are 0 or more. {way_out}")


def hold_out(users: Tensor, items: Tensor, *, share: float, salt: int) -> Tensor:
    """Choose a share of each user's pairs by a hash of the pair, but never the last pair of a user or an item.

    Args:
        users, items: int64 (E,), codes from 0; pairs distinct.
        share: of each user's pairs, rounded to the nearest number.
        salt: of the hash.

    Returns:
        bool (E,). Depends on the pairs, not on their order.
    """
    hashes = mix64(mix64(users + salt) + items)
    kept = torch.zeros(users.numel(), dtype=torch.bool)
    by_item = _grouped_order(items, hashes)
    kept[by_item[torch.nn.functional.pad(items[by_item].diff() != 0, (1, 0), value=True)]] = True
    counts = torch.bincount(users)
    wanted = torch.minimum((counts * share + 0.5).long(), counts - 1).clamp(min=0)
    free = (~kept).nonzero().squeeze(1)
    order = free[_grouped_order(users[free], hashes[free])]
    sizes = torch.bincount(users[free], minlength=counts.numel())
    place = torch.arange(order.numel()) - torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    held = torch.zeros_like(kept)
    held[order[place < wanted[users[order]]]] = True
    return held


def _grouped_order(groups: Tensor, values: Tensor) -> Tensor:
    """Positions by group, then by value."""
    by_value = torch.argsort(values, stable=True)
    return by_value[torch.argsort(groups[by_value], stable=True)]


def read_interactions(folder: Path, splits: Sequence[str]) -> Interactions:
    """Pairs of some splits of an ingested `InteractionDataset`; ids that train lacks are left out.

    Raises:
        DataError: the data set is of another kind, or a file is missing.
    """
    manifest = Manifest.read(folder)
    users, items = _ids(folder, manifest, splits)
    num_users, num_items = sizes(manifest)
    return Interactions.of(users, items, num_users=num_users, num_items=num_items)


def relevant_pairs(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Users and items of a split as they are, int64 (E,) each; 0 is unknown to train."""
    return _ids(folder, Manifest.read(folder), [split])


def sizes(manifest: Manifest) -> tuple[int, int]:
    """Numbers of users and items, each with the unknown id.

    Raises:
        DataError: the data set is no `InteractionDataset`.
    """
    columns = [column.name for column in manifest.schema.categorical]
    found = [manifest.categorical[name].num_embeddings for name in columns]
    if len(found) != 2 or None in found:
        raise DataError(
            f"data set {manifest.dataset!r} has the id columns {columns}: retrieval needs one of users and one of "
            "items. Choose a data set of interactions, such as dataset=gowalla."
        )
    return found[0] or 0, found[1] or 0


def _ids(folder: Path, manifest: Manifest, splits: Sequence[str]) -> tuple[Tensor, Tensor]:
    names = [column.name for column in manifest.schema.categorical][:2]
    files = [folder / file for split in splits if split in manifest.splits for file in manifest.splits[split].files]
    if not files:
        empty = torch.empty(0, dtype=torch.int64)
        return empty, empty
    frame = pl.read_parquet(files, columns=names)
    return frame[names[0]].to_torch(), frame[names[1]].to_torch()
