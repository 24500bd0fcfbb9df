"""Anybody's table: CSV, TSV, JSON lines, Parquet or Arrow files with a schema in the dataset config."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from recsys.core.errors import ConfigError
from recsys.core.labels import LabelKind
from recsys.core.schema import CategoricalFeature, NumericFeature, Schema, Timestamp
from recsys.data.dataset import RawFile, RawTable, SplitConfig, SplitMethod
from recsys.data.joined import Join, SideTable, joined_reader
from recsys.data.json_lines import JsonLinesReader
from recsys.data.locate import each_once, located
from recsys.data.past import History, LoggedPast, LoggedRows
from recsys.data.readers import ArrowReader, ParquetReader, Reader
from recsys.data.text import TextReader


class FileKind(Enum):
    """Form of the files."""

    TEXT = "text"  # delimited text: CSV, TSV; plain, .gz or .zst
    JSONL = "jsonl"  # one JSON object a line; plain, .gz or .zst
    PARQUET = "parquet"
    ARROW = "arrow"  # IPC files, also known as Feather version 2


@dataclass(frozen=True, kw_only=True)
class TableDataset:
    """Either `files`, which `split` divides, or one list of files for each split; named as `located` takes them."""

    label: str
    files: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    kind: FileKind = FileKind.TEXT
    separator: str = ","
    columns: tuple[str, ...] = ()  # of text files without header
    quoted: bool = True  # text values may stand between double quotes
    label_kind: LabelKind = LabelKind.CLICK  # or numbers to predict, such as stars
    other_labels: tuple[str, ...] = ()  # of further tasks, for models that learn several
    weight: str = ""  # column that says how many rows each counts as, in losses and metrics; "": all count alike
    numeric: tuple[NumericFeature, ...] = ()
    categorical: tuple[CategoricalFeature, ...] = ()
    timestamps: tuple[Timestamp, ...] = ()
    passthrough: tuple[str, ...] = ()
    side: tuple[SideTable, ...] = ()  # joined to the rows, in this order; their columns are raw columns like any other
    history: tuple[History, ...] = ()  # what the row's user did before; likewise
    name: str = "table"
    split: SplitConfig = field(default_factory=SplitConfig)

    def __post_init__(self) -> None:
        given = self.split.method is SplitMethod.GIVEN
        if bool(self.files) == given or bool(self.train) != given:
            raise ConfigError(
                f"dataset.split.method={self.split.method.name} with {len(self.files)} dataset.files and "
                f"{len(self.train)} dataset.train files: method GIVEN needs train (and validation, test), "
                "every other method needs files, and nothing else."
            )
        self._check_joins()

    def inputs(self) -> tuple[Path, ...]:
        """The files, in row order, and those of what is joined to them."""
        beside = (path for join in self.joins() for path in join.paths)
        return tuple(dict.fromkeys((*(file.path for file in self._files()), *beside)))

    def open(self, folder: Path, *, max_rejected: float = 0.0) -> RawTable:
        """The raw rows; `folder` is not used."""
        schema, joins = self.schema(), self.joins()
        return RawTable(
            name=self.name,
            schema=schema,
            files=self._files(),
            reader=joined_reader(self._reader(schema), joins, schema),
            split=self.split,
            joins=joins,
        )

    def joins(self) -> tuple[Join, ...]:
        """What is joined to the rows, in this order."""
        return (*self.side, *(self._past(history) for history in self.history))

    def schema(self) -> Schema:
        """The schema of the rows, with what is joined to them."""
        return Schema(
            label=self.label,
            label_kind=self.label_kind,
            other_labels=self.other_labels,
            weight=self.weight,
            numeric=self.numeric,
            categorical=self.categorical,
            timestamps=self.timestamps,
            passthrough=self.passthrough,
        )

    def _past(self, history: History) -> LoggedPast:
        """With its log: of other files, or of the rows and what side tables say of them."""
        time = next(each for each in self.timestamps if each.name == history.time)
        rows = LoggedRows(reader=self._reader(self.schema()), sides=self.side) if not history.files else None
        files = history.files or (*self.files, *self.train, *self.validation, *self.test)
        return LoggedPast(history=history, time=time, files=files, rows=rows)

    def _check_joins(self) -> None:
        given = [name for side in self.side for name in side.columns]
        given += [name for history in self.history for name in history.gives]
        repeated = sorted({name for name in given if given.count(name) > 1})
        if repeated:
            raise ConfigError(f"dataset.side and history give column(s) {repeated} twice. Give each once.")
        times = [timestamp.name for timestamp in self.timestamps]
        unknown = [history.time for history in self.history if history.time not in times]
        if unknown:
            raise ConfigError(
                f"dataset.history.time={unknown[0]!r} is none of dataset.timestamps, which has {times}. Declare it "
                "there with its form."
            )

    def _reader(self, schema: Schema) -> Reader:
        if self.kind is FileKind.PARQUET:
            return ParquetReader()
        if self.kind is FileKind.ARROW:
            return ArrowReader()
        if self.kind is FileKind.JSONL:
            return JsonLinesReader.of(schema, label=True, other=(self.split.column,) if self.split.column else ())
        # A command line gives the two characters `\t`; in a yaml's double quotes they are a tab.
        separator = self.separator.replace("\\t", "\t")
        return TextReader(separator=separator, columns=self.columns, quoted=self.quoted)

    def _files(self) -> tuple[RawFile, ...]:
        given = {"train": self.train, "validation": self.validation, "test": self.test}
        named = (RawFile(path=path, split=split) for split, names in given.items() for path in located(names))
        files = (*(RawFile(path=path) for path in located(self.files)), *named)
        each_once([file.path for file in files])
        return files
