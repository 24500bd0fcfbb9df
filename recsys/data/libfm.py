"""Data sets in libfm form with one id per field, and given train, validation and test files (Frappe, ML-tag, …)."""

from dataclasses import dataclass
from pathlib import Path

from recsys.core.errors import ConfigError
from recsys.core.schema import CategoricalFeature, KeyType, Schema
from recsys.data.dataset import RawFile, RawTable, SplitConfig, SplitMethod
from recsys.data.readers import LibfmReader


@dataclass(frozen=True, kw_only=True)
class LibfmDataset:
    """Lines `label id:1 … id:1`; label 1, and 0 or -1."""

    train: str
    validation: str
    test: str
    fields: list[str]  # names of the ids of a line, in order
    name: str = "libfm"
    min_count: int = 1

    def __post_init__(self) -> None:
        if not self.fields:
            raise ConfigError("dataset.fields=[]: name the fields of a line, in order.")
        object.__setattr__(self, "fields", list(self.fields))

    def open(self, folder: Path) -> RawTable:
        """The raw rows; `folder` is not used."""
        features = (
            CategoricalFeature(name=name, key_type=KeyType.INTEGER, min_count=self.min_count) for name in self.fields
        )
        paths = {"train": self.train, "validation": self.validation, "test": self.test}
        return RawTable(
            name=self.name,
            schema=Schema(label="label", categorical=tuple(features)),
            files=tuple(RawFile(path=Path(path), split=split) for split, path in paths.items()),
            reader=LibfmReader(fields=tuple(self.fields)),
            split=SplitConfig(method=SplitMethod.GIVEN),
        )
