"""Data sets in libfm form with one id per field, and given train, validation and test files (Frappe, ML-tag, …)."""

from dataclasses import dataclass
from pathlib import Path

from recsys.core.errors import ConfigError
from recsys.core.schema import CategoricalFeature, KeyType, Schema
from recsys.data.dataset import SPLIT_NAMES, RawFile, RawTable, SplitConfig, SplitMethod
from recsys.data.readers import LibfmReader


@dataclass(frozen=True, kw_only=True)
class LibfmDataset:
    """Lines `label id:1 … id:1`; label 1, and 0 or -1."""

    train: str
    validation: str
    test: str
    fields: tuple[str, ...]  # names of the ids of a line, in order
    name: str = "libfm"
    min_count: int = 1

    def __post_init__(self) -> None:
        if not self.fields:
            raise ConfigError("dataset.fields=[]: name the fields of a line, in order.")

    def inputs(self) -> tuple[Path, ...]:
        """The files, in row order."""
        return Path(self.train), Path(self.validation), Path(self.test)

    def open(self, folder: Path) -> RawTable:
        """The raw rows; `folder` is not used."""
        features = (
            CategoricalFeature(name=name, key_type=KeyType.INTEGER, min_count=self.min_count) for name in self.fields
        )
        return RawTable(
            name=self.name,
            schema=Schema(label="label", categorical=tuple(features)),
            files=tuple(RawFile(path=path, split=s) for s, path in zip(SPLIT_NAMES, self.inputs(), strict=True)),
            reader=LibfmReader(fields=self.fields),
            split=SplitConfig(method=SplitMethod.GIVEN),
        )
