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

MANY_LINES = 10_000
"""Lines among which a key of lists has a value."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class JsonLinesReader:
    """One JSON object a line. A key that a line lacks is null there; keys that nobody asks for are passed over.

    Values arrive as text, because one key may hold numbers on one line and text on another: whole numbers without a
    point (`1.0` as `1`), truth as `true` and `false`. Lists arrive as lists of text; a key
    holds lists on every line, or on none.
    """

    columns: tuple[str, ...]  # keys that are read; each must be on some line
    optional: tuple[str, ...] = ()  # keys that are read if the file's first lines have them
    lists: tuple[str, ...] = ()  # of all these, those that may hold lists

    @staticmethod
    def of(schema: Schema, *, label: bool, other: tuple[str, ...] = ()) -> "JsonLinesReader":
        """The reader of a schema's columns; without `label` also the passthrough columns may be absent."""
        told = (*schema.labels, *([schema.weight] if schema.weight else []), *(t.name for t in schema.timestamps))
        kept = (*told, *schema.passthrough, *other) if label else ()
        names = dict.fromkeys((*schema.raw_columns, *kept))
        return JsonLinesReader(
            columns=tuple(names),
            optional=() if label else tuple(name for name in schema.passthrough if name not in names),
            lists=tuple(name for f in schema.categorical if f.multi_valued for name in (f.name, f.weights) if name),
        )

    def count_rows(self, path: Path) -> int:
        """Rows of the file.

        Raises:
            DataError: a column is on no line.
        """
        # Here, because who counts reads to the end, as who takes rows need not.
        rows, absent = 0, set(self.columns)
        for block in text_blocks(path):
            rows += block.count(b"\n")
            absent = {name for name in absent if not _has_key(block, name)}
        if absent and rows:
            raise DataError(
                f"{path}: no line has the key(s) {sorted(absent)}. Correct the dataset config, or the file."
            )
        return rows

    def frames(
        self, path: Path, chunk_rows: int, *, first_row: int = 0, keep_damaged: bool = False
    ) -> Iterator[pl.DataFrame]:
        """The rows in order, at most `chunk_rows` at a time.

        Raises:
            DataError: a line is no JSON object and is not kept.
        """
        row = 0
        types: dict[str, pl.DataType] = {}
        for block in text_blocks(path):
            block = block if row else block.removeprefix(BYTE_ORDER_MARK)
            num_lines = block.count(b"\n")
            types = types or self._types(block)
            if row + num_lines > first_row:
                frame = _parsed(block, types, (path, row), keep_damaged=keep_damaged)
                yield from slices(frame, chunk_rows, first_row=first_row - row)
            row += num_lines

    def _types(self, block: bytes) -> dict[str, pl.DataType]:
        """What each key is read as, by the file's first block."""
        names = [*self.columns, *(name for name in self.optional if _has_key(block, name))]
        return {
            name: pl.List(pl.String) if name in self.lists and _holds_lists(block, name) else pl.String()
            for name in names
        }


def _holds_lists(block: bytes, name: str) -> bool:
    """False if the first value of that key is no list: then the values of a row stand in one text."""
    for line in block.split(b"\n", MANY_LINES)[:MANY_LINES]:
        with suppress(ValueError, AttributeError, RecursionError):
            found = json.loads(line).get(name)
            if found is not None:
                return isinstance(found, list)
    return True


def _parsed(block: bytes, types: dict[str, pl.DataType], at: tuple[Path, int], *, keep_damaged: bool) -> pl.DataFrame:
    """The rows of a block, which begins at row `at[1]` of the file `at[0]`."""
    suspicious: pl.Series | None = None
    with suppress(pl.exceptions.PolarsError):
        frame = pl.read_ndjson(block, schema=types)
        if frame.height == block.count(b"\n"):  # it passes over blank lines
            suspicious = _may_be_nested(frame, types)
            if not suspicious.any():
                return frame
    lines = block.removesuffix(b"\n").split(b"\n")
    asked = range(len(lines)) if suspicious is None else suspicious.arg_true().to_list()
    damaged = {i: problem for i in asked if (problem := _problem(lines[i], types)) is not None}
    if suspicious is not None and not damaged:
        return frame
    # What Python takes for JSON, polars need not.
    damaged = damaged or {i: problem for i, line in enumerate(lines) if (problem := _unread(line, types)) is not None}
    assert damaged, at
    if not keep_damaged:
        path, row = at
        place, problem = min(damaged.items())
        raise DataError(f"{path}, line {row + place + 1}: {problem}")
    sound = b"\n".join(b"{}" if i in damaged else line for i, line in enumerate(lines))
    texts = {i: (lines[i].decode(errors="replace"), problem) for i, problem in damaged.items()}
    return with_damaged(pl.read_ndjson(sound, schema=types), texts)


def _may_be_nested(frame: pl.DataFrame, types: dict[str, pl.DataType]) -> pl.Series:
    """Rows with a text that begins as lists and objects do: so polars reads these where it wants text."""
    texts = [name for name, dtype in types.items() if dtype == pl.String]
    found = (pl.col(name).str.slice(0, 1).is_in(["[", "{"]).fill_null(False) for name in texts)
    return frame.select(pl.any_horizontal(pl.lit(False), *found).alias("nested"))["nested"]


def _problem(line: bytes, types: dict[str, pl.DataType]) -> str | None:
    """What is wrong with a line, None if nothing is; keys that are not of lists hold text."""
    try:
        found = json.loads(line, parse_constant=_no_constant)
    except ValueError as error:
        return f"is not JSON ({error}). Write one object a line."
    except RecursionError:
        return "is nested too deep. Write flat objects."
    if not isinstance(found, dict):
        return "is not a JSON object. Write one object a line."
    lists = [name for name, dtype in types.items() if isinstance(dtype, pl.List)]
    wrong = [name for name in lists if not isinstance(found.get(name, []), list | None)]
    if wrong:
        return f"the key(s) {wrong} of multi-valued features hold no list, as those before. Write a JSON list, or null."
    nested = [name for name in types if name not in lists and isinstance(found.get(name), list | dict)]
    if nested:
        return (
            f"the key(s) {nested} hold a list or an object where one value is read. Write one value, or declare the "
            "feature multi_valued if every line holds a list."
        )
    return None


def _no_constant(name: str) -> object:
    raise ValueError(f"it has no {name}: a missing number is null")


def _unread(line: bytes, types: dict[str, pl.DataType]) -> str | None:
    try:
        pl.read_ndjson(line + b"\n", schema=types)
    except pl.exceptions.PolarsError as error:
        return f"cannot be read ({str(error).splitlines()[0]}). Write one flat object a line."
    return None


def _has_key(block: bytes, name: str) -> bool:
    """True if a line of the block may have that key."""
    return json.dumps(name).encode() in block or json.dumps(name, ensure_ascii=False).encode() in block
