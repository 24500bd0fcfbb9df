"""What raw rows are given beside their own columns as they are read: side tables, by a key; histories (`past`).

It is in memory, once a process, while the rows that it is joined to still pass in bounded pieces.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import polars as pl

from recsys.core.errors import ConfigError, DataError
from recsys.core.schema import CategoricalFeature, KeyType, Schema
from recsys.data.faults import Origin, check_present
from recsys.data.json_lines import JsonLinesReader
from recsys.data.locate import existing, located
from recsys.data.raw import UNKNOWN, normalise
from recsys.data.readers import Reader, reader_for

logger = logging.getLogger(__name__)

CHUNK_ROWS = 1 << 20


class Join(Protocol):
    """Columns that rows are given."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of the rows that decide what they are given."""

    @property
    def gives(self) -> tuple[str, ...]:
        """Columns that they are given."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files that it comes from."""

    @property
    def rule(self) -> tuple[object, ...]:
        """What decides, beside these files, what rows are given; for fingerprints."""

    def read(self, schema: Schema) -> "Given":
        """The files' content; keys have the types that the schema says."""


JoinT = TypeVar("JoinT", bound=Join)


class Given(Protocol):
    """A `Join` as read."""

    def joined(self, frame: pl.DataFrame, origin: Origin, *, keep_damaged: bool) -> pl.DataFrame:
        """The rows of `frame`, in their order, with the columns; `keep_damaged` as a reader's."""


@dataclass(frozen=True, kw_only=True)
class SideTable:
    """One row for each key, in files known by their endings: `.csv`, `.tsv`, `.jsonl`, `.parquet`, `.arrow`."""

    files: tuple[str, ...]  # named as `located` takes them
    key: str  # column of these files and of the rows
    columns: tuple[str, ...]  # taken into the rows, where they are missing values if the key is not known

    def __post_init__(self) -> None:
        names = (self.key, *self.columns)
        if not (self.files and self.key and self.columns) or len(set(names)) < len(names):
            raise ConfigError(
                f"dataset.side: files={list(self.files)}, key={self.key!r}, columns={list(self.columns)}: name the "
                "files, the column of their keys, and the others to take from them, each once."
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """The key."""
        return (self.key,)

    @property
    def gives(self) -> tuple[str, ...]:
        """The columns taken."""
        return self.columns

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return located(self.files)

    @property
    def rule(self) -> tuple[object, ...]:
        """Key and columns."""
        return (self.key, self.columns)

    def read(self, schema: Schema) -> "Known":
        """The table; its key has the type that the schema gives to the feature of that name, else text.

        Raises:
            DataError: a file is missing, unreadable or lacks a column, or a key is missing or has two rows.
        """
        key, features = key_column(self.key, schema), {feature.name: feature for feature in schema.raw_categories}
        lists = {name for name in self.columns if name in features and features[name].multi_valued}
        columns = tuple(CategoricalFeature(name=name, multi_valued=name in lists) for name in self.columns)
        asked = Schema(label="", categorical=(key, *columns))
        parts = [keyed_rows(reader_for(path, asked), path, key, self.columns) for path in self.paths]
        try:
            rows = pl.concat(parts)
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"{', '.join(map(str, self.paths))}: {list(self.columns)} have other types in one file than in another "
                f"({str(error).splitlines()[0]}). Write them in one type."
            ) from error
        check_unique(rows, key.name, ", ".join(self.files))
        return Known(key=key, rows=rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """A side table as read: `rows` has the key, String or Int64, once each, and the columns in their own types."""

    key: CategoricalFeature
    rows: pl.DataFrame

    def joined(self, frame: pl.DataFrame, origin: Origin, *, keep_damaged: bool) -> pl.DataFrame:
        """The rows of `frame`, in their order, with the columns, and `UNKNOWN` + key.

        Raises:
            DataError: `frame` lacks the key, or has one of the columns itself.
        """
        name = self.key.name
        taken = [column for column in self.rows.columns if column != name]
        check_joined(frame, origin, (name,), taken, "dataset.side")
        coded = keys_of(frame[name], self.key)
        found = pl.DataFrame({name: coded}).join(self.rows, on=name, how="left", maintain_order="left")
        unknown = coded.is_not_null() & ~coded.is_in(self.rows[name].implode())
        return frame.with_columns(*(found[column] for column in taken), unknown.alias(UNKNOWN + name))


@dataclass(frozen=True, kw_only=True, eq=False)
class JoinedReader:
    """Rows of another reader with further columns, joined one after the other."""

    reader: Reader
    given: tuple[Given, ...]

    def count_rows(self, path: Path) -> int:
        """Rows of the file."""
        return self.reader.count_rows(path)

    def frames(
        self, path: Path, chunk_rows: int, *, first_row: int = 0, keep_damaged: bool = False
    ) -> Iterator[pl.DataFrame]:
        """The rows in order, at most `chunk_rows` at a time.

        Raises:
            DataError: as the other reader, and as what is joined.
        """
        row = first_row
        for frame in self.reader.frames(path, chunk_rows, first_row=first_row, keep_damaged=keep_damaged):
            for given in self.given:
                frame = given.joined(frame, Origin(path=str(path), first_row=row), keep_damaged=keep_damaged)
            row += frame.height
            yield frame


def joined_reader(reader: Reader, joins: Sequence[Join], schema: Schema) -> Reader:
    """The reader with further columns, read now, which it is itself not asked for; itself without any.

    Raises:
        DataError: as `Join.read`.
    """
    if not joins:
        return reader
    if isinstance(reader, JsonLinesReader):
        given = {name for join in joins for name in join.gives}
        names = dict.fromkeys((*reader.columns, *(name for join in joins for name in join.needs)))
        reader = replace(reader, columns=tuple(name for name in names if name not in given))
    return JoinedReader(reader=reader, given=tuple(join.read(schema) for join in joins))


def needed(joins: Sequence[JoinT], columns: Iterable[str], *, present: Iterable[str] = ()) -> tuple[JoinT, ...]:
    """Those that give columns which rows with the columns `present` lack, or what the former need."""
    present = set(present)
    lacking = set(columns) - present
    found: list[JoinT] = []
    for join in reversed(joins):
        if lacking & set(join.gives):
            found.append(join)
            lacking |= set(join.needs) - present
    return tuple(reversed(found))


def key_column(name: str, schema: Schema) -> CategoricalFeature:
    """A column of keys, of the type that the schema gives to the feature of that name, else text."""
    types = {feature.name: feature.key_type for feature in schema.raw_categories}
    return CategoricalFeature(name=name, key_type=types.get(name, KeyType.STRING))


def keys_of(values: pl.Series, key: CategoricalFeature) -> pl.Series:
    """String or Int64 by the key's type; null for what is no such key: nobody's, and refused where it is a feature.

    Of floats 1.0 is the key 1, because a column of whole numbers, some of which are missing, often is written so.
    """
    if values.dtype.is_float():
        whole = values.cast(pl.Int64, strict=False)
        values = whole.cast(pl.String).zip_with(whole == values, values.fill_nan(None).cast(pl.String))
    wanted = pl.Int64 if key.key_type is KeyType.INTEGER else pl.String
    legal = not values.dtype.is_nested() and values.dtype not in (pl.Binary, pl.Duration)
    return values.cast(pl.String).cast(wanted, strict=False) if legal else values.clear(len(values)).cast(wanted)


def check_joined(frame: pl.DataFrame, origin: Origin, needs: Sequence[str], gives: Sequence[str], section: str) -> None:
    """Refuse rows without a column that a join needs, or with one that it gives.

    Raises:
        DataError: there is such a column.
    """
    check_present(frame.columns, needs, origin, section)
    twice = [name for name in gives if name in frame.columns]
    if twice:
        raise DataError(
            f"{origin.path}: has column(s) {twice}, which {section} gives too. Rename them there, or leave them out of "
            f"{section}."
        )


def keyed_rows(reader: Reader, path: Path, key: CategoricalFeature, columns: Sequence[str]) -> pl.DataFrame:
    """All rows of one file: the key, typed, and `columns` as they are.

    Raises:
        DataError: the file is missing, unreadable or lacks a column, or a row has no key of that type.
    """
    parts, row = [], 0
    for frame in reader.frames(existing(path, "dataset.side"), CHUNK_ROWS):
        origin = Origin(path=str(path), first_row=row)
        check_present(frame.columns, (key.name, *columns), origin, "dataset.side")
        keys = normalise(frame, Schema(label="", categorical=(key,)), origin, label=False)
        nobody = keys[key.name].is_null() | (keys[key.name].cast(pl.String) == "")
        if nobody.any():
            at = row + int(nobody.arg_true()[0]) + 1
            raise DataError(f"{path}, row {at} (from 1, header not counted): has no {key.name!r}. Remove the row.")
        parts.append(frame.select(keys[key.name], *columns))
        row += frame.height
    if not row:
        raise DataError(f"{path}: the file holds no rows (dataset.side). Fill it, or leave it out.")
    return pl.concat(parts)


def check_unique(rows: pl.DataFrame, key: str, where: str) -> None:
    """Refuse a key that has two rows.

    Raises:
        DataError: one has.
    """
    twice = rows.filter(pl.col(key).is_duplicated())
    if twice.height:
        raise DataError(f"{where}: {key} {twice[key][0]!r} has more than one row. Keep one row per {key}.")
