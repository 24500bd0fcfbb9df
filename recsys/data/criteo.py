"""Criteo Display Advertising rows: label, 13 integers, 26 categorical columns of 8 hex digits."""

from dataclasses import dataclass, field
from pathlib import Path

from recsys.core.schema import CategoricalFeature, NumericFeature, NumericTransform, Schema
from recsys.data.dataset import RawFile, RawTable, SplitConfig
from recsys.data.text import TextReader

NUMERIC = tuple(f"I{i}" for i in range(1, 14))
CATEGORICAL = tuple(f"C{i}" for i in range(1, 27))


@dataclass(frozen=True, kw_only=True)
class CriteoDataset:
    """`train.txt` of the Kaggle challenge: 40 tab-separated columns without header; also `.gz` and `.zst`."""

    path: str
    name: str = "criteo"
    separator: str = "\t"
    header: bool = False  # True: the first line names label, I1..I13, C1..C26
    min_count: int = 1  # values seen less often in train are out-of-vocabulary
    transform: NumericTransform = NumericTransform.LOG1P_STANDARD
    fill: float | None = None  # what missing numbers are read as, before the transform; None: as the mean
    split: SplitConfig = field(default_factory=SplitConfig)

    def inputs(self) -> tuple[Path, ...]:
        """The file."""
        return (Path(self.path),)

    def open(self, folder: Path, *, max_rejected: float = 0.0) -> RawTable:
        """The raw rows; `folder` is not used."""
        schema = Schema(
            label="label",
            numeric=tuple(NumericFeature(name=name, transform=self.transform, fill=self.fill) for name in NUMERIC),
            categorical=tuple(CategoricalFeature(name=name, min_count=self.min_count) for name in CATEGORICAL),
        )
        columns = () if self.header else ("label", *NUMERIC, *CATEGORICAL)
        return RawTable(
            name=self.name,
            schema=schema,
            files=(RawFile(path=Path(self.path)),),
            reader=TextReader(separator=self.separator, columns=columns, quoted=False),
            split=self.split,
        )
