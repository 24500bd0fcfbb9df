"""Histories with planted interests: which past events matter for a target is known, and so is the best probability.

Every item belongs to one interest (over one of its categories) and to one of its two sides. A user has a few interests,
likes one side of each, and the past holds items of them in random order, mostly of the liked sides. A target is an item
of one of these interests, of either side, and its logit is

    bias + strength * side(target) * mean of side(event) over the events of the target's interest

with mean 0 where there is none. So the past events of other interests are noise, and what they say of their own sides
cannot be told from it after they have been averaged with the rest; a model that attends to the target's interest is
needed. The label is drawn from that probability, which stands in the column `bayes_probability`.

`relevance` is a text of `0` and `1`, one for each event of `hist_item` in its order: the planted attention weights are
these digits over their sum. `interest` is the target's interest.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.schema import CategoricalFeature, KeyType, Schema
from recsys.core.specs import Pooling
from recsys.data.dataset import RawTable, SplitConfig
from recsys.data.histories import gap_buckets, lists
from recsys.data.made import Made, pieces_of
from recsys.data.readers import ParquetReader
from recsys.ops.hashing import mix64, salt_for

CHUNK_ROWS = 16_384
ID_BITS = 2**53 - 1
BAYES, RELEVANCE, INTEREST = "bayes_probability", "relevance", "interest"
MEAN_GAP = 3_600.0  # seconds between two events


@dataclass(frozen=True, kw_only=True)
class PlantedDataset:
    """Generated rows: label, user, item, category, hist_item, hist_category, hist_gap, and what was planted."""

    name: str = "planted_interests"
    num_rows: int = 100_000
    num_users: int = 10_000
    num_interests: int = 24
    categories_per_interest: int = 4
    items_per_category: int = 24  # half of them on each side
    interests_per_user: int = 4  # draws; two may agree
    max_length: int = 40  # of a history, which has at least a quarter of that; newest first
    fidelity: float = 0.85  # share of past events on the side that the user likes
    strength: float = 3.0
    bias: float = -0.5
    seed: int = 2021
    split: SplitConfig = field(default_factory=SplitConfig)

    def __post_init__(self) -> None:
        least = {"num_rows": 10, "num_users": 1, "num_interests": 1, "categories_per_interest": 1, "max_length": 1}
        for name, lowest in {**least, "items_per_category": 2, "interests_per_user": 1}.items():
            if getattr(self, name) < lowest:
                raise ConfigError(f"dataset.{name}={getattr(self, name)}: must be {lowest} or more.")
        if self.items_per_category % 2:
            raise ConfigError(
                f"dataset.items_per_category={self.items_per_category}: must be even, a half for each side."
            )
        if not 0.5 <= self.fidelity <= 1:
            raise ConfigError(
                f"dataset.fidelity={self.fidelity}: must lie between 0.5, where the past says nothing, and 1."
            )

    def inputs(self) -> tuple[Path, ...]:
        """None: every row is a function of this config."""
        return ()

    def open(self, folder: Path, *, max_rejected: float = 0.0) -> RawTable:
        """Write the rows to `folder/raw` as Parquet and return them."""
        pieces = pieces_of(self.num_rows, CHUNK_ROWS, _Generator(self).frame)
        files = Made(folder, self, max_rejected=max_rejected).files(pieces, num_rows=self.num_rows)
        return RawTable(name=self.name, schema=self.schema(), files=files, reader=ParquetReader(), split=self.split)

    def schema(self) -> Schema:
        """The schema of the rows."""
        single = (CategoricalFeature(name=name, key_type=KeyType.INTEGER) for name in ("user", "item", "category"))
        past = (
            CategoricalFeature(
                name=name,
                key_type=KeyType.INTEGER,
                multi_valued=True,
                max_length=self.max_length,
                pooling=Pooling.MEAN,
                vocabulary=vocabulary,
            )
            for name, vocabulary in {"hist_item": "item", "hist_category": "category", "hist_gap": ""}.items()
        )
        return Schema(label="label", categorical=(*single, *past), passthrough=("user", BAYES, RELEVANCE, INTEREST))


@dataclass(frozen=True)
class _Items:
    """Items of any shape, by number: interest after interest, category after category, sides in turn."""

    number: Tensor
    config: PlantedDataset

    @property
    def interest(self) -> Tensor:
        return self.number // (self.config.items_per_category * self.config.categories_per_interest)

    @property
    def category(self) -> Tensor:
        return self.number // self.config.items_per_category

    @property
    def side(self) -> Tensor:
        """1 or -1, float64."""
        return 1.0 - 2.0 * (self.number % 2).double()


class _Generator:
    """The rows of one config, any piece of them at a time."""

    def __init__(self, config: PlantedDataset) -> None:
        self._config = config
        self._pairs = config.items_per_category * config.categories_per_interest // 2  # of an interest

    def frame(self, rows: Tensor) -> pl.DataFrame:
        """These rows, int64 (B,)."""
        config = self._config
        user = self._whole(rows, "user", config.num_users)
        shortest = math.ceil(config.max_length / 4)
        lengths = shortest + self._whole(rows, "length", config.max_length - shortest + 1)
        # A key of its own for each event of a row.
        events = rows.unsqueeze(1) * config.max_length + torch.arange(config.max_length)
        past = self._liked(events, user.unsqueeze(1).expand_as(events))
        target = self._target(rows, user)
        there = torch.arange(config.max_length) < lengths.unsqueeze(1)
        relevant = there & (past.interest == target.interest.unsqueeze(1))
        lean = (past.side * relevant).sum(1) / relevant.sum(1).clamp(min=1)
        probability = torch.sigmoid(config.bias + config.strength * target.side * lean)
        ages = torch.cumsum(-MEAN_GAP * torch.log(self._uniform(events, "gap")), 1).long()
        offsets = torch.cat([lengths.new_zeros(1), torch.cumsum(lengths, 0)])
        digits = pl.Series(relevant[there].to(torch.uint8).numpy()).cast(pl.String)
        return pl.DataFrame(
            [
                pl.Series("label", (self._uniform(rows, "label") < probability).to(torch.int8).numpy()),
                self._ids("user", user),
                self._ids("item", target.number),
                self._ids("category", target.category),
                lists("hist_item", self._ids("item", past.number[there]), offsets),
                lists("hist_category", self._ids("category", past.category[there]), offsets),
                lists("hist_gap", pl.Series(gap_buckets(ages)[there].numpy()), offsets),
                pl.Series(BAYES, probability.numpy()),
                lists(RELEVANCE, digits, offsets).list.join(""),
                pl.Series(INTEREST, target.interest.numpy()),
            ]
        )

    def _liked(self, events: Tensor, user: Tensor) -> _Items:
        """Past events, of any shape: items of their users' interests, mostly on the sides that these like."""
        interest = self._interest_of(events, user, "event")
        liked = self._whole(user * self._config.num_interests + interest, "liked side", 2)
        strays = self._uniform(events, "stray") >= self._config.fidelity
        return self._item(interest, self._whole(events, "event item", self._pairs), liked ^ strays)

    def _target(self, rows: Tensor, user: Tensor) -> _Items:
        """The item that each row asks for: of one of its user's interests, on either side."""
        interest = self._interest_of(rows, user, "target")
        return self._item(interest, self._whole(rows, "target item", self._pairs), self._whole(rows, "target side", 2))

    def _interest_of(self, keys: Tensor, user: Tensor, name: str) -> Tensor:
        """One of the users' interests for each key."""
        drawn = self._whole(keys, f"{name} interest", self._config.interests_per_user)
        return self._whole(user * self._config.interests_per_user + drawn, "interest", self._config.num_interests)

    def _item(self, interest: Tensor, pair: Tensor, side: Tensor) -> _Items:
        """The item of that interest, pair of items in it, and side (0 or 1)."""
        return _Items(2 * (interest * self._pairs + pair) + side, self._config)

    def _uniform(self, keys: Tensor, name: str) -> Tensor:
        """Independent numbers in (0, 1), float64, shape of `keys`; a hash, so that no row depends on the pieces."""
        hashed = mix64(keys + salt_for(name, 0, self._config.seed))
        return (((hashed >> 11) & ID_BITS).double() + 0.5) * 2.0**-53

    def _whole(self, keys: Tensor, name: str, bound: int) -> Tensor:
        """Independent numbers in [0, bound), int64, shape of `keys`."""
        return (self._uniform(keys, name) * bound).long()

    def _ids(self, name: str, numbers: Tensor) -> pl.Series:
        """Ids that hide the order of the numbers."""
        return pl.Series(name, (mix64(numbers + salt_for(f"{name} id", 0, self._config.seed)) & ID_BITS).numpy())
