"""Side files: what is known of items beside the log that names them."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.core.errors import ConfigError, DataError
from recsys.core.schema import CategoricalFeature
from recsys.data.compression import read_bytes
from recsys.data.event_log import EventLog, filled, typed
from recsys.data.faults import Faults, Origin
from recsys.data.joined import check_unique, keyed_rows
from recsys.data.locate import existing, located
from recsys.data.readers import ParquetReader, Reader
from recsys.data.text import TextReader

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SideFile:
    """One row per item, or JSON `{item: [value, …]}`; also `.gz` and `.zst`.

    Of a table (`.parquet`, or text with a header) the attributes are columns, and the item's column is named as in the
    log. Of JSON they are places: the first takes an item's rarest value (that of the fewest items, which says most
    about it; ties by value), the second its second rarest, and all have one vocabulary.
    """

    path: str = ""  # "": none
    separator: str = "\t"  # of text
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.path) != bool(self.attributes):
            raise ConfigError(
                f"dataset.side.path={self.path!r} with attributes={list(self.attributes)}: name the file and what to "
                "take from it, or neither."
            )

    @property
    def is_json(self) -> bool:
        """Whether values are lists, so that attributes are places in them."""
        return ".json" in Path(self.path).suffixes

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file, if there is one."""
        return located([self.path]) if self.path else ()


def with_side(items: pl.DataFrame, side: SideFile, log: EventLog) -> pl.DataFrame:
    """`items` (one row per item of the log) with the side file's attributes; what it lacks is missing.

    Raises:
        DataError: the file is missing, unreadable or lacks a column, or names an item twice.
    """
    if not side.path:
        return items
    path, *others = side.paths
    if others:
        raise ConfigError(f"dataset.side.path={side.path!r}: fits {1 + len(others)} files. Name one.")
    item = CategoricalFeature(name=log.item, key_type=log.key_type)
    raw = _json_rows(path, side, log) if side.is_json else keyed_rows(_reader(path, side), path, item, side.attributes)
    columns = tuple(CategoricalFeature(name=n, key_type=log.key_type) for n in (log.item, *side.attributes))
    table = typed(raw, log, columns, Faults(Origin(path=str(path)), strict=True)).select(log.item, *side.attributes)
    check_unique(table, log.item, str(path))
    lacking = items.join(table, on=log.item, how="anti").height
    if lacking:
        logger.warning("%s knows nothing of %d of %d items: their attributes are missing", path, lacking, items.height)
    return filled(items.join(table, on=log.item, how="left", maintain_order="left"), side.attributes)


def _reader(path: Path, side: SideFile) -> Reader:
    if path.suffix == ".parquet":
        return ParquetReader()
    return TextReader(separator=side.separator.replace("\\t", "\t"))


def _json_rows(path: Path, side: SideFile, log: EventLog) -> pl.DataFrame:
    existing(path, "dataset.side")
    try:
        values = json.loads(b"".join(read_bytes(path)))
        frame = pl.DataFrame({log.item: list(values), "value": list(values.values())})
        pairs = frame.explode("value").unique().drop_nulls()
    except (ValueError, TypeError, AttributeError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{path}: not JSON of the form {{item: [value, …]}} ({str(error).splitlines()[0]}). Write one list of "
            "numbers or of texts for each item."
        ) from error
    ranked = pairs.with_columns(pl.len().over("value").alias("bearers")).sort(log.item, "bearers", "value")
    lists = ranked.group_by(log.item, maintain_order=True).agg("value")
    places = (pl.col("value").list.get(i, null_on_oob=True).alias(name) for i, name in enumerate(side.attributes))
    return lists.select(log.item, *places)
