"""JSON lines in bounded pieces."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.core.schema import Schema
from recsys.data.blocks import slices, text_blocks
from recsys.data.faults import with_damaged


@dataclass(frozen=True, kw_only=True)
class JsonLinesReader:
    """One JSON object a line. A key that a line lacks is null there; keys that nobody asks for are passed over.

    Values arrive as text, because one key may hold numbers on one line and text on another: whole numbers without a
    point (`1.0` as `1`), truth as `true` and `false`. Lists arrive as lists of text.
    """

    columns: tuple[str, ...]  # keys that are read; each must be on some line
    optional: tuple[str, ...] = ()  # keys that are read if the file's first lines have them
    lists: tuple[str, ...] = ()  # of all these, those that hold lists

    @staticmethod
    def of(schema: Schema, *, label: bool, other: tuple[str, ...] = ()) -> "JsonLinesReader":
        """The reader of a schema's columns; without `label` also the passthrough columns may be absent."""
        kept = (schema.label, *schema.passthrough, *other) if label else ()
        names = dict.fromkeys((*schema.raw_columns, *kept))
        return JsonLinesReader(
            columns=tuple(names),
            optional=() if label else tuple(name for name in schema.passthrough if name not in names),
            lists=tuple(feature.name for feature in schema.categorical if feature.multi_valued),
        )

    def count_rows(self, path: Path) -> int:
        """Rows of the file."""
        return sum(block.count(b"\n") for block in text_blocks(path, quoted=False))

    def frames(
        self, path: Path, chunk_rows: int, *, first_row: int = 0, keep_damaged: bool = False
    ) -> Iterator[pl.DataFrame]:
        """The rows in order, at most `chunk_rows` at a time.

        Raises:
            DataError: a line is no JSON object and is not kept, or a column is on no line.
        """
        row = 0
        absent = set(self.columns)
        wanted: list[str] = []
        for block in text_blocks(path, quoted=False):
            num_lines = block.count(b"\n")
            wanted = wanted or [*self.columns, *(name for name in self.optional if _has_key(block, name))]
            absent = {name for name in absent if not _has_key(block, name)}
            if row + num_lines > first_row:
                frame = self._parsed(block, wanted, (path, row), keep_damaged=keep_damaged)
                yield from slices(frame, chunk_rows, first_row=first_row - row)
            row += num_lines
        if absent and row:
            raise DataError(
                f"{path}: no line has the key(s) {sorted(absent)}. Correct the dataset config, or the file."
            )

    def _parsed(self, block: bytes, wanted: list[str], at: tuple[Path, int], *, keep_damaged: bool) -> pl.DataFrame:
        """The rows of a block, which begins at row `at[1]` of the file `at[0]`."""
        types = {name: pl.List(pl.String) if name in self.lists else pl.String() for name in wanted}
        with suppress(pl.exceptions.PolarsError):
            frame = pl.read_ndjson(block, schema=types)
            if frame.height == block.count(b"\n"):  # it passes over blank lines
                return frame
        lines = block.removesuffix(b"\n").split(b"\n")
        damaged = {i: problem for i, line in enumerate(lines) if (problem := self._problem(line)) is not None}
        if not damaged or not keep_damaged:
            path, row = at
            place, problem = min(damaged.items(), default=(0, "begins lines that cannot be read"))
            raise DataError(f"{path}, line {row + place + 1}: {problem}")
        sound = b"\n".join(b"{}" if i in damaged else line for i, line in enumerate(lines))
        texts = {i: (lines[i].decode(errors="replace"), problem) for i, problem in damaged.items()}
        return with_damaged(pl.read_ndjson(sound, schema=types), texts)

    def _problem(self, line: bytes) -> str | None:
        """What is wrong with a line, None if nothing is."""
        try:
            found = json.loads(line)
        except ValueError as error:
            return f"is not JSON ({error}). Write one object a line."
        if not isinstance(found, dict):
            return "is not a JSON object. Write one object a line."
        wrong = [name for name in self.lists if not isinstance(found.get(name, []), list | None)]
        if wrong:
            return f"the key(s) {wrong} of multi-valued features hold no list. Write a JSON list, or null."
        return None


def _has_key(block: bytes, name: str) -> bool:
    """True if a line of the block may have that key."""
    return json.dumps(name).encode() in block or json.dumps(name, ensure_ascii=False).encode() in block
