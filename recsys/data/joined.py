"""Side tables: what is known of users, items and the like, joined to raw rows by a key as they are read.

They are in memory, once a process, while the rows they are joined to still pass in bounded pieces.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from recsys.core.errors import ConfigError, DataError
from recsys.core.schema import CategoricalFeature, KeyType, Schema
from recsys.data.faults import Origin
from recsys.data.json_lines import JsonLinesReader
from recsys.data.locate import located
from recsys.data.raw import UNKNOWN, normalise
from recsys.data.readers import Reader, reader_for

logger = logging.getLogger(__name__)

CHUNK_ROWS = 1 << 20


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
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return located(self.files)


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """A side table as read: `rows` has the key, String or Int64, once each, and the columns in their own types."""

    key: CategoricalFeature
    rows: pl.DataFrame

    def joined(self, frame: pl.DataFrame, path: Path) -> pl.DataFrame:
        """The rows of `frame`, in their order, with the columns, and `UNKNOWN` + key.

        Raises:
            DataError: `frame` lacks the key, or has one of the columns itself.
        """
        name = self.key.name
        taken = [column for column in self.rows.columns if column != name]
        if name not in frame.columns:
            raise DataError(
                f"{path}: column {name!r}, the key of a side table, is missing; the file has {frame.columns}. Correct "
                "dataset.side, or the file's header."
            )
        twice = [column for column in taken if column in frame.columns]
        if twice:
            raise DataError(
                f"{path}: has column(s) {twice}, which dataset.side takes from another file. Rename them there, or "
                "leave them out of dataset.side."
            )
        keys = frame[name]
        # What is no such key is nobody's, and refused where the column is a feature.
        wanted = pl.Int64 if self.key.key_type is KeyType.INTEGER else pl.String
        legal = not keys.dtype.is_nested() and keys.dtype not in (pl.Binary, pl.Duration)
        coded = keys.cast(pl.String).cast(wanted, strict=False) if legal else keys.clear(len(keys)).cast(wanted)
        found = pl.DataFrame({name: coded}).join(self.rows, on=name, how="left", maintain_order="left")
        unknown = coded.is_not_null() & ~coded.is_in(self.rows[name].implode())
        return frame.with_columns(*(found[column] for column in taken), unknown.alias(UNKNOWN + name))


@dataclass(frozen=True, kw_only=True, eq=False)
class JoinedReader:
    """Rows of another reader with the columns of side tables, joined one after the other."""

    reader: Reader
    sides: tuple[Known, ...]

    def count_rows(self, path: Path) -> int:
        """Rows of the file."""
        return self.reader.count_rows(path)

    def frames(
        self, path: Path, chunk_rows: int, *, first_row: int = 0, keep_damaged: bool = False
    ) -> Iterator[pl.DataFrame]:
        """The rows in order, at most `chunk_rows` at a time.

        Raises:
            DataError: as the other reader, and as `Known.joined`.
        """
        for frame in self.reader.frames(path, chunk_rows, first_row=first_row, keep_damaged=keep_damaged):
            for side in self.sides:
                frame = side.joined(frame, path)
            yield frame


def joined_reader(reader: Reader, sides: Sequence[SideTable], schema: Schema) -> Reader:
    """The reader with the columns of side tables, read now, which it is itself not asked for; itself without any.

    Raises:
        DataError: as `read_side`.
    """
    if not sides:
        return reader
    if isinstance(reader, JsonLinesReader):
        taken = {name for side in sides for name in side.columns}
        names = dict.fromkeys((*reader.columns, *(side.key for side in sides)))
        reader = replace(reader, columns=tuple(name for name in names if name not in taken))
    return JoinedReader(reader=reader, sides=tuple(read_side(side, schema) for side in sides))


def read_side(side: SideTable, schema: Schema) -> Known:
    """A side table; its key has the type that the schema gives to the feature of that name, else text.

    Raises:
        DataError: a file is missing, unreadable or lacks a column, or a key is missing or has two rows.
    """
    features = {feature.name: feature for feature in schema.raw_categories}
    named = features.get(side.key)
    key = CategoricalFeature(name=side.key, key_type=named.key_type if named else KeyType.STRING)
    lists = {name for name in side.columns if name in features and features[name].multi_valued}
    columns = tuple(CategoricalFeature(name=name, multi_valued=name in lists) for name in side.columns)
    asked = Schema(label="", categorical=(key, *columns))
    parts = [keyed_rows(reader_for(path, asked), path, key, side.columns) for path in side.paths]
    try:
        rows = pl.concat(parts)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{', '.join(map(str, side.paths))}: {list(side.columns)} have other types in one file than in another "
            f"({str(error).splitlines()[0]}). Write them in one type."
        ) from error
    check_unique(rows, key.name, ", ".join(side.files))
    return Known(key=key, rows=rows)


def keyed_rows(reader: Reader, path: Path, key: CategoricalFeature, columns: Sequence[str]) -> pl.DataFrame:
    """All rows of one file: the key, typed, and `columns` as they are.

    Raises:
        DataError: the file is missing, unreadable or lacks a column, or a row has no key of that type.
    """
    parts, row = [], 0
    for frame in reader.frames(existing(path), CHUNK_ROWS):
        lacking = [name for name in (key.name, *columns) if name not in frame.columns]
        if lacking:
            raise DataError(
                f"{path}: column(s) {lacking} of dataset.side are missing; the file has {frame.columns}. Correct the "
                "names in the dataset config, or the file's header."
            )
        keys = normalise(
            frame, Schema(label="", categorical=(key,)), Origin(path=str(path), first_row=row), label=False
        )
        nobody = keys[key.name].is_null() | (keys[key.name].cast(pl.String) == "")
        if nobody.any():
            at = row + int(nobody.arg_true()[0]) + 1
            raise DataError(f"{path}, row {at} (from 1, header not counted): has no {key.name!r}. Remove the row.")
        parts.append(frame.select(keys[key.name], *columns))
        row += frame.height
    if not row:
        raise DataError(f"{path}: the file holds no rows (dataset.side). Fill it, or leave it out.")
    return pl.concat(parts)


def existing(path: Path) -> Path:
    """The path.

    Raises:
        DataError: there is no such file.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such file (dataset.side). Correct the path of the dataset config, or set RECSYS_DATA to the "
            "folder of the data sets."
        )
    return path


def check_unique(rows: pl.DataFrame, key: str, where: str) -> None:
    """Refuse a key that has two rows.

    Raises:
        DataError: one has.
    """
    twice = rows.filter(pl.col(key).is_duplicated())
    if twice.height:
        raise DataError(f"{where}: {key} {twice[key][0]!r} has more than one row. Keep one row per {key}.")
