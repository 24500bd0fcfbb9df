"""Raw rows in known types, and as the tensors that serving sees.

Types of a normalised frame: the label Float32 (0 or 1), numeric features Float64 (null and NaN are missing),
categorical features String or Int64 by their key type, lists of these when multi-valued, others as they were read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import polars_hash
from torch import Tensor

from recsys.core.errors import DataError
from recsys.core.schema import LENGTHS_SUFFIX, MISSING_KEY, CategoricalFeature, KeyType, Schema
from recsys.data.readers import reader_for

ROW = "__row__"
LABEL = "__label__"
TEXT_TYPES = (pl.String, pl.Categorical, pl.Enum)
NOT_AN_INTEGER = (
    "is no signed 64-bit integer. Correct it, leave it empty if it is missing, or give the feature key_type STRING."
)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a frame's rows come from, for error messages."""

    path: str = "raw rows"
    first_row: int = 0  # position of the frame's first row in that file, without header


def normalise(
    frame: pl.DataFrame, schema: Schema, origin: Origin, *, label: bool = True, other: Sequence[str] = ()
) -> pl.DataFrame:
    """Return the schema's columns in the types of this module's docstring; applying it twice changes nothing.

    Args:
        label: also the label and the passthrough columns; rows to be scored need neither.
        other: further columns to keep.
    Raises:
        DataError: a column is missing or a value is not of its type.
    """
    keep = [*schema.passthrough, *other] if label else [*other]
    _check_columns(frame, [*([schema.label] if label else []), *(f.name for f in schema.numeric)], origin)
    _check_columns(frame, [*(f.name for f in schema.categorical), *keep], origin)
    columns = [_label(frame[schema.label], origin)] if label else []
    columns += [_numbers(frame[feature.name], origin) for feature in schema.numeric]
    columns += [_categories(frame[feature.name], feature, origin) for feature in schema.categorical]
    taken = {column.name for column in columns}
    columns += [frame[name] for name in dict.fromkeys(keep) if name not in taken]
    return pl.DataFrame(columns)


def _check_columns(frame: pl.DataFrame, names: Sequence[str], origin: Origin) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise DataError(
            f"{origin.path}: column(s) {missing} of the schema are missing; the file has {frame.columns}. "
            "Correct the names in the dataset config, or the file's header."
        )


def _refuse(column: pl.Series, bad: pl.Series, origin: Origin, problem: str) -> None:
    """Raise for the first row where `bad` holds."""
    rows = bad.fill_null(False).arg_true()
    if len(rows):
        row = int(rows[0])
        value = column[row].to_list() if isinstance(column[row], pl.Series) else column[row]
        raise DataError(
            f"{origin.path}, row {origin.first_row + row + 1} (from 1, header not counted), column {column.name!r}: "
            f"{value!r} {problem}"
        )


def _label(column: pl.Series, origin: Origin) -> pl.Series:
    label = column.cast(pl.Float32, strict=False)
    problem = "is not a label. Labels must be 0 or 1 on every row; remove or relabel such rows."
    _refuse(column, label.is_null() | ~label.is_in([0.0, 1.0]), origin, problem)
    return label


def _numbers(column: pl.Series, origin: Origin) -> pl.Series:
    if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Boolean, pl.Null)):
        _refuse(column, column.is_not_null(), origin, f"is {column.dtype}, not a number. Make the column numeric.")
    numbers = column.cast(pl.Float64, strict=False)
    if column.dtype == pl.String:
        problem = "is not a number. Correct it, or leave it empty if it is missing."
        _refuse(column, numbers.is_null() & column.is_not_null() & (column != ""), origin, problem)
    # As float32, which is what the model reads: 1e39 is infinite there.
    problem = "is infinite (as float32). Clip it, or leave it empty if it is missing."
    _refuse(column, numbers.cast(pl.Float32).is_infinite(), origin, problem)
    return numbers


def _categories(column: pl.Series, feature: CategoricalFeature, origin: Origin) -> pl.Series:
    if not feature.multi_valued:
        wanted = _check_key_type(column, column.dtype, feature, origin)
        keys = column.cast(wanted, strict=False)
        given = column.is_not_null() & (column != "") if column.dtype == pl.String else column.is_not_null()
        _refuse(column, keys.is_null() & given, origin, NOT_AN_INTEGER)
        return keys
    if column.dtype in (pl.String, pl.Null):
        column = column.cast(pl.String).str.split(feature.separator)
    if not isinstance(column.dtype, pl.List):
        _refuse(
            column, column.is_not_null(), origin, f"is {column.dtype}. A multi-valued column must be text or lists."
        )
    inner = column.dtype.inner if isinstance(column.dtype, pl.List) else pl.String
    wanted = _check_key_type(column, pl.Series(dtype=inner).dtype, feature, origin)
    if inner == pl.String:  # an empty text between two separators is no value
        column = column.list.eval(pl.element().filter(pl.element() != ""))
    column = column.list.drop_nulls()
    keys = column.cast(pl.List(wanted), strict=False).list.drop_nulls()
    _refuse(column, keys.list.len() != column.list.len(), origin, NOT_AN_INTEGER)
    return keys.fill_null(pl.Series([[]], dtype=keys.dtype)) if keys.null_count() else keys


def _check_key_type(column: pl.Series, dtype: pl.DataType, feature: CategoricalFeature, origin: Origin) -> pl.DataType:
    """The type that keys of this feature have; refuses columns that cannot become that without guessing."""
    legal = dtype.is_integer() or dtype in (pl.Boolean, pl.Null, *TEXT_TYPES) or dtype.is_temporal()
    if feature.key_type is KeyType.INTEGER:
        legal = dtype.is_integer() or dtype in (pl.Boolean, pl.Null, pl.String)
    if not legal:
        problem = f"is {dtype}, which is no {feature.key_type.value} key. Write the column as integers or text."
        _refuse(column, column.is_not_null(), origin, problem)
    return pl.Int64() if feature.key_type is KeyType.INTEGER else pl.String()


def string_keys(values: pl.Series) -> pl.Series:
    """Int64 keys of texts: xxh64 of the UTF-8 bytes with seed 0, as signed; null and empty are `MISSING_KEY`.

    Not `polars.Expr.hash`, which differs between versions of polars.
    """
    frame = values.rename("value").to_frame()
    hashed = frame.select(polars_hash.col("value").nchash.xxhash64()).to_series().reinterpret(signed=True)
    return hashed.set(values == "", MISSING_KEY).fill_null(MISSING_KEY)


def border_tensors(frame: pl.DataFrame, schema: Schema, origin: Origin = Origin()) -> dict[str, Tensor]:
    """What serving sees of raw rows, which need neither label nor passthrough columns.

    Returns:
        By feature name. Numeric: float32 (B,), NaN is missing. Categorical: int64 keys (B,). Multi-valued: int64 keys
        (N,) row after row, and `<name>__lengths` int64 (B,).
    Raises:
        DataError: as `normalise`.
    """
    return tensors_of(normalise(frame, schema, origin, label=False), schema)


def tensors_of(frame: pl.DataFrame, schema: Schema) -> dict[str, Tensor]:
    """`border_tensors` of a frame that is normalised already."""
    tensors: dict[str, Tensor] = {}
    for numeric in schema.numeric:
        tensors[numeric.name] = frame[numeric.name].cast(pl.Float32).fill_null(float("nan")).to_torch()
    for feature in schema.categorical:
        values = frame[feature.name]
        if feature.multi_valued:
            lengths = values.list.len().cast(pl.Int64)
            tensors[feature.name + LENGTHS_SUFFIX] = lengths.to_torch()
            values = values.filter(lengths > 0).explode()
        keys = string_keys(values) if feature.key_type is KeyType.STRING else values.fill_null(MISSING_KEY)
        tensors[feature.name] = keys.to_torch()
    return tensors


def read_raw(
    path: Path, schema: Schema, *, columns: tuple[str, ...] = (), quoted: bool = True, chunk_rows: int = 65_536
) -> Iterator[pl.DataFrame]:
    """Rows to be scored, from a .csv, .tsv or .parquet file, normalised, with `__row__` (Int64, from 0).

    Those passthrough columns that the file has are kept.

    Args:
        columns: names of a text file's columns when it has no header.
        quoted: values of a text file may stand between double quotes.
    Raises:
        DataError: the file is unreadable, lacks a feature of the schema, or holds a bad value.
    """
    row = 0
    for frame in reader_for(path, columns=columns, quoted=quoted).frames(path, chunk_rows):
        kept = [name for name in schema.passthrough if name in frame.columns]
        frame = normalise(frame, schema, Origin(path=str(path), first_row=row), label=False, other=kept)
        yield frame.with_columns(pl.int_range(row, row + frame.height, dtype=pl.Int64, eager=True).alias(ROW))
        row += frame.height
