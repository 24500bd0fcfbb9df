"""Data sets in libfm form with one id per field, and given train, validation and test files (Frappe, ML-tag, …)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.core.errors import ConfigError, DataError
from recsys.core.schema import CategoricalFeature, KeyType, Schema
from recsys.data.blocks import slices, text_blocks
from recsys.data.dataset import SPLIT_NAMES, RawFile, RawTable, SplitConfig, SplitMethod
from recsys.data.faults import with_damaged


@dataclass(frozen=True, kw_only=True)
class LibfmReader:
    """Lines `label id:1 … id:1`, one id per field, in field order; a label of -1 is read as 0.

    Columns: `label` and one Int64 column per field.
    """

    fields: tuple[str, ...]

    def count_rows(self, path: Path) -> int:
        """Rows of the file."""
        return sum(block.count(b"\n") for block in text_blocks(path))

    def frames(
        self, path: Path, chunk_rows: int, *, first_row: int = 0, keep_damaged: bool = False
    ) -> Iterator[pl.DataFrame]:
        """The rows in order, at most `chunk_rows` at a time.

        Raises:
            DataError: a line is not of that form, and is not kept.
        """
        row = 0
        for block in text_blocks(path):
            num_lines = block.count(b"\n")
            if row + num_lines > first_row:
                text = block.removesuffix(b"\n").decode("utf-8", "replace")
                lines = pl.Series("line", text.split("\n")).str.strip_chars_end()
                frame = self._parsed(lines, f"{path}, line", row, keep_damaged=keep_damaged)
                yield from slices(frame, chunk_rows, first_row=first_row - row)
            row += num_lines

    def _parsed(self, lines: pl.Series, where: str, row: int, *, keep_damaged: bool) -> pl.DataFrame:
        # At most 18 digits: a longer id might not fit 64 bits.
        legal = lines.str.contains(rf"^(-1|0|1)( -?\d{{1,18}}:1){{{len(self.fields)}}}$")
        damaged = (~legal).arg_true().to_list()
        problem = (
            "is not a libfm row of this data set. Expected a label "
            f"(1, 0 or -1) and then {len(self.fields)} times ' id:1', one for each of {list(self.fields)}."
        )
        if damaged and not keep_damaged:
            raise DataError(f"{where} {row + damaged[0] + 1}: {lines[damaged[0]]!r} {problem}")
        parts = lines.set(~legal, None).str.split_exact(" ", len(self.fields)).struct.unnest()
        ids = [
            pl.col(f"field_{i}").str.strip_suffix(":1").cast(pl.Int64).alias(n) for i, n in enumerate(self.fields, 1)
        ]
        frame = parts.select(pl.col("field_0").replace("-1", "0").alias("label"), *ids)
        return with_damaged(frame, {at: (lines[at], problem) for at in damaged}) if damaged else frame


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

    def open(self, folder: Path, *, max_rejected: float = 0.0) -> RawTable:
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
