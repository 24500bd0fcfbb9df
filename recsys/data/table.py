"""Anybody's table: CSV, TSV or Parquet files with a schema in the dataset config."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from recsys.core.errors import ConfigError
from recsys.core.schema import CategoricalFeature, NumericFeature, Schema
from recsys.data.dataset import SPLIT_NAMES, RawFile, RawTable, SplitConfig, SplitMethod
from recsys.data.readers import ParquetReader, Reader, TextReader


class FileKind(Enum):
    """Form of the files."""

    TEXT = "text"  # delimited text: CSV, TSV; plain, .gz or .zst
    PARQUET = "parquet"


@dataclass(frozen=True, kw_only=True)
class TableDataset:
    """Either `files`, which `split` divides, or one list of files for each split."""

    label: str
    files: list[str] = field(default_factory=list)
    train: list[str] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    kind: FileKind = FileKind.TEXT
    separator: str = ","
    columns: list[str] = field(default_factory=list)  # of text files without header
    quoted: bool = True  # text values may stand between double quotes
    numeric: list[NumericFeature] = field(default_factory=list)
    categorical: list[CategoricalFeature] = field(default_factory=list)
    passthrough: list[str] = field(default_factory=list)
    name: str = "table"
    split: SplitConfig = SplitConfig()

    def __post_init__(self) -> None:
        given = self.split.method is SplitMethod.GIVEN
        if bool(self.files) == given or bool(self.train) != given:
            raise ConfigError(
                f"dataset.split.method={self.split.method.name} with {len(self.files)} dataset.files and "
                f"{len(self.train)} dataset.train files: method GIVEN needs train (and validation, test), "
                "every other method needs files, and nothing else."
            )

    def open(self, folder: Path) -> RawTable:
        """The raw rows; `folder` is not used."""
        files = [RawFile(path=Path(path)) for path in self.files]
        for split in SPLIT_NAMES:
            files += [RawFile(path=Path(path), split=split) for path in getattr(self, split)]
        schema = Schema(
            label=self.label,
            numeric=tuple(self.numeric),
            categorical=tuple(self.categorical),
            passthrough=tuple(self.passthrough),
        )
        return RawTable(name=self.name, schema=schema, files=tuple(files), reader=self._reader(), split=self.split)

    def _reader(self) -> Reader:
        if self.kind is FileKind.PARQUET:
            return ParquetReader()
        return TextReader(separator=self.separator, columns=tuple(self.columns), quoted=self.quoted)
