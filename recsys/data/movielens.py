"""MovieLens-100k: who rated which film, with what is known of both; a rating of `positive_from` or more is a click,
or the rating itself is the label.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.core.labels import LabelKind
from recsys.core.schema import (
    CategoricalFeature,
    Derivation,
    KeyType,
    NumericFeature,
    NumericTransform,
    Schema,
    TimeForm,
    Timestamp,
)
from recsys.core.specs import Pooling
from recsys.data.compression import read_bytes
from recsys.data.dataset import RawTable, SplitConfig, SplitMethod
from recsys.data.event_log import STEM, TIME, EventLog, event_frames, num_rows_of
from recsys.data.faults import Faults, Origin, Rejected
from recsys.data.joined import check_unique
from recsys.data.locate import existing
from recsys.data.made import Made, Piece
from recsys.data.readers import ParquetReader
from recsys.data.times import LAST_SECOND

GENRES = (
    "unknown Action Adventure Animation Children Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical "
    "Mystery Romance Sci-Fi Thriller War Western"
).split()
RATINGS = ("user", "item", "rating", "time")
USERS = ("user", "age", "sex", "occupation", "zip")
ITEMS = ("item", "title", "released", "video", "url", *GENRES)


@dataclass(frozen=True, kw_only=True)
class MovieLensDataset:
    """`u.data`, `u.user` and `u.item`, joined; also `.gz` and `.zst`."""

    ratings: str
    users: str
    items: str
    name: str = "movielens"
    label_kind: LabelKind = LabelKind.CLICK  # or numbers: the ratings, 1 to 5
    positive_from: int = 4  # lowest rating that is a click
    min_count: int = 1  # values seen less often in train are out-of-vocabulary
    split: SplitConfig = field(default_factory=lambda: SplitConfig(method=SplitMethod.TIME, column="time"))

    def inputs(self) -> tuple[Path, ...]:
        """The three files."""
        return Path(self.ratings), Path(self.users), Path(self.items)

    def open(self, folder: Path, *, max_rejected: float = 0.0) -> RawTable:
        """Write the joined rows, in the order of the ratings, to `folder/raw` and return them; all are in memory.

        Raises:
            DataError: a file is missing or is not what MovieLens publishes, or a rating names an unknown user or film.
        """
        log = EventLog(
            files=(self.ratings,), separator="\t", columns=RATINGS, attributes=("rating",), key_type=KeyType.INTEGER
        )
        made = Made(folder, self, max_rejected=max_rejected)
        num_rows = num_rows_of(log)
        rejected = Rejected(folder, num_rows=num_rows, limit=max_rejected, stem=STEM)
        known = {"user": _read(Path(self.users), USERS), "item": _read(Path(self.items), ITEMS)}
        frames = event_frames(log, rejected, num_rows=num_rows, check=partial(_note_impossible, known))
        ratings = [frame for frame in frames if frame.height]
        if not ratings:
            raise DataError(f"{self.ratings}: the file holds no ratings. Give the file as MovieLens publishes it.")
        joined = self._joined(pl.concat(ratings).rename({TIME: "time"}), known)
        piece = Piece(stem="part-00000", num_rows=joined.height, make=lambda: joined)
        files = made.files([piece], num_rows=joined.height)
        return RawTable(
            name=self.name,
            schema=self.schema(),
            files=files,
            reader=ParquetReader(),
            split=self.split,
            rejected=rejected,
        )

    def _joined(self, rows: pl.DataFrame, known: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
        """Ratings with what is known of their users and films."""
        for name, frame in known.items():
            rows = rows.join(frame, on=name, how="left", maintain_order="left")
        genres = pl.concat_list(pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in GENRES).list.drop_nulls()
        rating = pl.col("rating")
        label = (rating >= self.positive_from).cast(pl.Int8) if self.label_kind is LabelKind.CLICK else rating
        return rows.select(
            label.alias("label"),
            *("user", "item", "age", "time"),
            *("sex", "occupation", "zip"),
            pl.col("released").str.tail(4).cast(pl.Int64, strict=False).alias("year"),
            genres.alias("genres"),
        )

    def schema(self) -> Schema:
        """The schema of the joined rows."""
        count = self.min_count
        ids = (CategoricalFeature(name=name, key_type=KeyType.INTEGER, min_count=count) for name in ("user", "item"))
        texts = (CategoricalFeature(name=name, min_count=count) for name in ("sex", "occupation", "zip"))
        return Schema(
            label="label",
            label_kind=self.label_kind,
            numeric=(NumericFeature(name="age", transform=NumericTransform.STANDARD),),
            categorical=(
                *ids,
                *texts,
                CategoricalFeature(name="year", key_type=KeyType.INTEGER, min_count=count),
                CategoricalFeature(name="genres", multi_valued=True, max_length=6, pooling=Pooling.MEAN),
                CategoricalFeature(name="hour", derive=Derivation.HOUR, of=("time",)),
                CategoricalFeature(name="weekday", derive=Derivation.WEEKDAY, of=("time",)),
            ),
            timestamps=(Timestamp(name="time", form=TimeForm.SECONDS),),
            passthrough=("user", "time"),
        )


def _note_impossible(known: Mapping[str, pl.DataFrame], rows: pl.DataFrame, faults: Faults) -> None:
    """Note ratings of nobody and nothing known, those that are none, and times that no calendar has."""
    for name, frame in known.items():
        unknown = ~rows[name].is_in(frame[name].implode())
        faults.note(rows[name], unknown, f"is in no line of the file of {name}s. Add it there, or remove the rating.")
    rating, time = rows["rating"], rows[TIME].alias("time")
    faults.note(rating, ~rating.is_between(1, 5).fill_null(value=False), "is no rating from 1 to 5.")
    faults.note(time, ~time.is_between(0, LAST_SECOND), "are no seconds since 1970 up to the year 9999.")


def _read(path: Path, names: tuple[str, ...]) -> pl.DataFrame:
    """What is known of users or items, once each: text, but whole numbers of the key and of ages."""
    text = b"".join(read_bytes(existing(path, "of MovieLens-100k"))).decode("latin-1")  # which every byte is legal in
    lines = pl.Series("line", text.rstrip("\n").split("\n")).str.strip_chars_end("\r")
    parts = lines.str.split("|")
    if (parts.list.len() != len(names)).any():
        at = int((parts.list.len() != len(names)).arg_true()[0])
        raise DataError(
            f"{path}, line {at + 1}: {lines[at]!r} has no {len(names)} values separated by '|'. Give the "
            "file as MovieLens publishes it."
        )
    frame = parts.list.to_struct(fields=list(names)).struct.unnest()
    faults = Faults(Origin(path=str(path)), strict=True)
    for name in {names[0], "age"} & set(names):
        numbers = frame[name].cast(pl.Int64, strict=False)
        faults.note(frame[name], numbers.is_null(), "is no whole number. Give the file as MovieLens publishes it.")
        frame = frame.with_columns(numbers)
    check_unique(frame, names[0], str(path))  # of two rows each rating would become two
    return frame
