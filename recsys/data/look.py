"""How a file of raw rows is read, found out from the file itself, and its first rows."""

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.core.schema import CategoricalFeature, Schema
from recsys.data.blocks import text_blocks
from recsys.data.faults import Origin
from recsys.data.joined import SideTable
from recsys.data.json_lines import BYTE_ORDER_MARK, JsonLinesReader
from recsys.data.lines import end_of_rows, quotes_enclose
from recsys.data.raw import UNKNOWN
from recsys.data.readers import PACKED, ArrowReader, ParquetReader, Reader
from recsys.data.table import FileKind
from recsys.data.text import TextReader

KINDS = {".parquet": FileKind.PARQUET, ".arrow": FileKind.ARROW, ".ipc": FileKind.ARROW, ".feather": FileKind.ARROW,
         ".jsonl": FileKind.JSONL, ".ndjson": FileKind.JSONL}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a file is read, and its first rows."""

    kind: FileKind
    separator: str
    columns: tuple[str, ...]  # of text without header
    quoted: bool
    frame: pl.DataFrame  # with the columns of `side`
    side: tuple[SideTable, ...] = ()


def look(path: Path, num_rows: int, side: tuple[SideTable, ...] = ()) -> Look:
    """Find out how a file is read, and read so many rows, joined to side tables.

    Raises:
        DataError: the file, or one of a side table, is missing, empty or unreadable, or a key is.
    """
    if path.is_dir():
        raise DataError(f"infer.files: {path}: is a folder. Name its files, or a pattern such as {path}/*.csv.")
    if not path.is_file():
        raise DataError(f"infer.files: {path}: no such file. Correct the path.")
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in PACKED]
    kind = KINDS.get(suffixes[-1] if suffixes else "", FileKind.TEXT)
    separator, columns, quoted = ",", tuple[str, ...](), True
    reader: Reader
    if kind is FileKind.TEXT:
        separator, columns, quoted = _text_form(path)
        reader = TextReader(separator=separator, columns=columns, quoted=quoted)
    elif kind is FileKind.JSONL:
        reader = _json_reader(path, num_rows)
    else:
        reader = ParquetReader() if kind is FileKind.PARQUET else ArrowReader()
    frames: list[pl.DataFrame] = []
    for frame in reader.frames(path, num_rows, keep_damaged=False):
        frames.append(frame)
        if sum(each.height for each in frames) >= num_rows:
            break
    if not frames or not frames[0].height:
        raise DataError(f"infer.files: {path}: the file holds no rows. Give one that does.")
    read = pl.concat(frames).head(num_rows)
    for each in side:
        known = each.read(Schema(label="", categorical=(CategoricalFeature(name=each.key),)))
        read = known.joined(read, Origin(path=str(path)), keep_damaged=True)
    read = read.select(pl.exclude(f"^{UNKNOWN}.*$"))
    return Look(kind=kind, separator=separator, columns=columns, quoted=quoted, frame=read, side=side)


def _text_form(path: Path) -> tuple[str, tuple[str, ...], bool]:
    """(separator, names of the columns if there is no header, whether values may stand between quotes)."""
    block = next(text_blocks(path), b"").removeprefix(BYTE_ORDER_MARK)
    lines = block.decode("utf-8", "replace").split("\n")[:100]
    first = lines[0] if lines else ""
    separator = max(",\t;|", key=first.count)
    values = [value.strip('" \r') for value in first.split(separator)]
    named = len(set(values)) == len(values) and all(values) and not any(_is_number(value) for value in values)
    columns = () if named else tuple(f"column_{i}" for i in range(1, len(values) + 1))
    rows = block[: end_of_rows(block, separator=separator.encode())]
    return separator, columns, b'"' in rows and quotes_enclose(rows, separator=separator.encode())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _json_reader(path: Path, num_rows: int) -> JsonLinesReader:
    names: dict[str, None] = {}
    lists: set[str] = set()
    lines = (line for block in text_blocks(path) for line in block.split(b"\n"))
    for line in islice(filter(None, (line.removeprefix(BYTE_ORDER_MARK) for line in lines)), num_rows):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: a line is not JSON ({error}). Write one object a line.") from error
        if not isinstance(found, dict):
            raise DataError(f"{path}: a line is no JSON object ({line[:40]!r}). Write one object a line.")
        names |= dict.fromkeys(found)
        lists |= {name for name, value in found.items() if isinstance(value, list)}
    return JsonLinesReader(columns=tuple(names), lists=tuple(lists))
