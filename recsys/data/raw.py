"""Raw rows in known types, and as the tensors that serving sees.

Types of a normalised frame: labels Float32 (0 or 1; any finite number where the schema says so), the weight Float32
(finite, 0 or more), numbers Float64 (null and NaN are missing), categorical features String or Int64 by their key type,
lists of these when multi-valued and the weights of these List(Float32), timestamps `TIME_TYPE`, others as they were
read.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl
import polars_hash
from torch import Tensor

from recsys.core.labels import LabelKind
from recsys.core.names import LENGTHS_SUFFIX, WEIGHTS_SUFFIX
from recsys.core.schema import MISSING_KEY, MISSING_TEXT, CategoricalFeature, KeyType, Schema
from recsys.data.faults import ANYWHERE, Faults, Origin, check_present
from recsys.data.readers import Reader
from recsys.data.times import seconds_of, times_of

ROW = "__row__"
UNKNOWN = "__unknown__"
"""Before the name of a key, a column of joined rows: no side table knows the row's key."""
EMPTY = "__empty__"
"""Before the name of a history's list, a column of joined rows: the row's is empty."""

logger = logging.getLogger(__name__)

TEXT_TYPES = (pl.String, pl.Categorical, pl.Enum)
TRUTH = {text: str(i) for i, texts in enumerate(("false False FALSE", "true True TRUE")) for text in texts.split()}
"""Truth as JSON, Python and spreadsheets write it, and as a number."""

NOT_A_LABEL = {
    LabelKind.CLICK: "is not a label. Labels must be 0 or 1 on every row; remove or relabel such rows. Where they are "
    "numbers to predict, set dataset.label_kind to number.",
    LabelKind.NUMBER: "is not a label. Labels must be finite numbers (as float32) on every row; remove or correct it.",
}
ONE_OF_SEVERAL = "is not a label. Each of several labels must be 0 or 1 on every row; remove or relabel such rows."
NOT_AN_INTEGER = (
    "is no signed 64-bit integer. Correct it, leave it empty if it is missing, or give the feature key_type STRING."
)


def normalise(
    frame: pl.DataFrame, schema: Schema, origin: Origin, *, label: bool = True, other: Sequence[str] = ()
) -> pl.DataFrame:
    """Return the schema's columns in the types of this module's docstring; applying it twice changes nothing.

    Args:
        label: also label, weight, passthrough columns and timestamps that no feature is made of; rows to be scored need
            none of these.
        other: further columns to keep.
    Raises:
        DataError: a column is missing or a value is not of its type.
    """
    return typed_columns(frame, schema, Faults(origin, strict=True), label=label, other=other)


def typed_columns(
    frame: pl.DataFrame, schema: Schema, faults: Faults, *, label: bool = True, other: Sequence[str] = ()
) -> pl.DataFrame:
    """As `normalise`, for all rows: those whose faults are noted are still among them, with any value."""
    keep = [*schema.passthrough, *other] if label else [*other]
    timestamps = schema.timestamps if label else schema.input_times
    told = [name for name in (*schema.labels, schema.weight, *(t.name for t in timestamps)) if name] if label else []
    check_present(frame.columns, [*told, *schema.raw_columns, *keep], faults.origin, "the schema")
    faults.note_damaged(frame)
    columns = [_label(_column(frame, name), schema, faults) for name in schema.labels] if label else []
    columns += [_weight(_column(frame, schema.weight), faults)] if label and schema.weight else []
    columns += [_numbers(_column(frame, name), faults) for name in schema.raw_numbers]
    categories = [_categories(_column(frame, feature.name), feature, faults) for feature in schema.raw_categories]
    columns += categories
    for feature, keys in zip(schema.raw_categories, categories, strict=True):
        if feature.weights:
            columns.append(_item_weights(_column(frame, feature.weights), keys, feature, faults))
    columns += [times_of(_column(frame, timestamp.name), timestamp, faults) for timestamp in timestamps]
    taken = {column.name for column in columns}
    columns += [frame[name] for name in dict.fromkeys(keep) if name not in taken]
    return pl.DataFrame(columns)


def _column(frame: pl.DataFrame, name: str) -> pl.Series:
    """A column; where it holds nothing its type, which may be any, means nothing."""
    column = frame[name]
    return column if column.null_count() < len(column) else pl.Series(name, [None] * len(column), dtype=pl.Null)


def _label(column: pl.Series, schema: Schema, faults: Faults) -> pl.Series:
    _check_number_type(column, faults)
    kind = schema.label_kind
    label = _as_numbers(column).cast(pl.Float32)
    good = label.is_in([0.0, 1.0]) if kind is LabelKind.CLICK else label.is_finite()
    faults.note(column, label.is_null() | ~good, ONE_OF_SEVERAL if schema.other_labels else NOT_A_LABEL[kind])
    return label


def _weight(column: pl.Series, faults: Faults) -> pl.Series:
    _check_number_type(column, faults)
    weight = _as_numbers(column).cast(pl.Float32)
    problem = "is not a weight. Weights must be 0 or more and finite (as float32) on every row; 0 leaves a row out."
    faults.note(column, weight.is_null() | ~(weight.is_finite() & (weight >= 0)), problem)
    return weight


def _numbers(column: pl.Series, faults: Faults) -> pl.Series:
    _check_number_type(column, faults)
    numbers = _as_numbers(column)
    # Told by counts and extremes first: what looks at rows takes longer than reading them.
    if column.dtype == pl.String and numbers.null_count() > column.null_count():
        problem = "is not a number. Correct it, or leave it empty if it is missing."
        faults.note(column, numbers.is_null() & column.is_not_null() & (column != ""), problem)
    # As float32, which is what the model reads: 1e39 is infinite there.
    read = numbers.cast(pl.Float32)
    if read.max() == math.inf or read.min() == -math.inf:
        problem = "is infinite (as float32). Clip it, or leave it empty if it is missing."
        faults.note(column, read.is_infinite(), problem)
    return numbers


def _check_number_type(column: pl.Series, faults: Faults) -> None:
    if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Boolean, pl.Null)):
        faults.refuse(column, column.is_not_null(), f"is {column.dtype}, not a number. Make the column numeric.")


def _as_numbers(column: pl.Series) -> pl.Series:
    """Float64, null where a value is no number; texts of `TRUTH` are numbers too."""
    numbers = column.cast(pl.Float64, strict=False)
    if column.dtype == pl.String and numbers.null_count() > column.null_count():
        numbers = column.replace(TRUTH).cast(pl.Float64, strict=False)
    return numbers


def _categories(column: pl.Series, feature: CategoricalFeature, faults: Faults) -> pl.Series:
    if not feature.multi_valued:
        wanted = _check_key_type(column, column.dtype, feature, faults)
        keys = column.cast(wanted, strict=False)
        if keys.null_count() > column.null_count():
            given = column.is_not_null() & (column != "") if column.dtype == pl.String else column.is_not_null()
            faults.note(column, keys.is_null() & given, NOT_AN_INTEGER)
        return keys
    if column.dtype in (*TEXT_TYPES, pl.Null):
        column = column.cast(pl.String).str.split(feature.separator)
    if not isinstance(column.dtype, pl.List):
        faults.refuse(column, column.is_not_null(), f"is {column.dtype}. A multi-valued column must be text or lists.")
    inner = column.dtype.inner if isinstance(column.dtype, pl.List) else pl.String
    wanted = _check_key_type(column, pl.Series(dtype=inner).dtype, feature, faults)
    if inner == pl.String:  # an empty text between two separators is no value
        column = column.list.eval(pl.element().filter(pl.element() != ""))
    column = column.list.drop_nulls()
    keys = column.cast(pl.List(wanted), strict=False).list.drop_nulls()
    bad = keys.list.len() != column.list.len()
    if bad.any():
        wrong = column.list.eval(pl.element().filter(pl.element().cast(wanted, strict=False).is_null())).list.first()
        faults.note(wrong, bad, f"{NOT_AN_INTEGER} Between values of a text stands {feature.separator!r}.")
    return keys.fill_null(pl.Series([[]], dtype=keys.dtype)) if keys.null_count() else keys


def _item_weights(column: pl.Series, keys: pl.Series, feature: CategoricalFeature, faults: Faults) -> pl.Series:
    """List(Float32), as long as `keys`, which are those of the same rows after empty ones were left out."""
    if column.dtype in (*TEXT_TYPES, pl.Null):
        texts = column.cast(pl.String).str.split(feature.separator)
        column = texts.list.eval(pl.element().filter(pl.element() != ""))
    inner = column.dtype.inner if isinstance(column.dtype, pl.List) else pl.Binary()
    if not (inner.is_numeric() or inner in (pl.String, pl.Null)):
        faults.refuse(column, column.is_not_null(), f"is {column.dtype}. Weights must be lists of numbers, or text.")
    weights = column.cast(pl.List(pl.Float32), strict=False)
    weights = weights.fill_null(pl.Series([[]], dtype=weights.dtype)) if weights.null_count() else weights
    flat = pl.DataFrame({"w": weights}).with_columns(
        bad=pl.col("w").list.eval(~pl.element().is_finite().fill_null(False))
    )
    bad = (weights.list.len() != keys.list.len()) | flat["bad"].list.any()
    faults.note(column, bad, f"is not one finite number for each value of {feature.name!r}, empty ones left out.")
    return weights


def _check_key_type(column: pl.Series, dtype: pl.DataType, feature: CategoricalFeature, faults: Faults) -> pl.DataType:
    """The type that keys of this feature have; refuses columns that cannot become that without guessing."""
    legal = dtype.is_integer() or dtype in (pl.Boolean, pl.Null, pl.Date, pl.Datetime, pl.Time, *TEXT_TYPES)
    if feature.key_type is KeyType.INTEGER:
        legal = dtype.is_integer() or dtype in (pl.Boolean, pl.Null, pl.String)
    if not legal:
        problem = f"is {dtype}, which is no {feature.key_type.value} key. Write the column as integers or text."
        faults.refuse(column, column.is_not_null(), problem)
    return pl.Int64() if feature.key_type is KeyType.INTEGER else pl.String()


def string_keys(values: pl.Series) -> pl.Series:
    """Int64 keys of texts: xxh64 of the UTF-8 bytes with seed 0, as signed; null, empty and `MISSING_TEXT` are
    `MISSING_KEY`.

    Not `polars.Expr.hash`, which differs between versions of polars.
    """
    return _with_keys(values.to_frame("text"), ["text"])["text"]


def _with_keys(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The frame with the keys of texts in place of these columns; all at once, because each call costs as much."""
    hashed = {name: polars_hash.col(name).nchash.xxhash64().reinterpret(signed=True) for name in names}
    # Compared one by one: `is_in` takes three times as long.
    missing = {name: (pl.col(name) == "") | (pl.col(name) == MISSING_TEXT) for name in names}
    return frame.with_columns(
        pl.when(missing[name]).then(MISSING_KEY).otherwise(key).fill_null(MISSING_KEY).alias(name)
        for name, key in hashed.items()
    )


def border_tensors(frame: pl.DataFrame, schema: Schema, origin: Origin = ANYWHERE) -> dict[str, Tensor]:
    """What serving sees of raw rows, which need neither label nor passthrough columns.

    Returns:
        By raw column. Numbers: float32 (B,), NaN is missing. Categories: int64 keys (B,). Multi-valued ones: int64 keys
        (N,) row after row, `<name>__lengths` int64 (B,), and `<name>__weights` float32 (N,) of those that have weights.
        Timestamps: int64 seconds (B,), `MISSING_KEY` is missing.
    Raises:
        DataError: as `normalise`.
    """
    return tensors_of(normalise(frame, schema, origin, label=False), schema)


def tensors_of(frame: pl.DataFrame, schema: Schema) -> dict[str, Tensor]:
    """`border_tensors` of a frame that is normalised already."""
    numbers = frame.select(pl.col(schema.raw_numbers).cast(pl.Float32).fill_null(float("nan")))
    tensors = {name: numbers[name].to_torch() for name in schema.raw_numbers}
    single = [feature for feature in schema.raw_categories if not feature.multi_valued]
    frame = _with_keys(frame, [feature.name for feature in single if feature.key_type is KeyType.STRING])
    for timestamp in schema.input_times:
        tensors[timestamp.name] = seconds_of(frame[timestamp.name]).to_torch()
    for feature in schema.raw_categories:
        values = frame[feature.name]
        if feature.multi_valued:
            lengths = values.list.len().cast(pl.Int64)
            tensors[feature.name + LENGTHS_SUFFIX] = lengths.to_torch()
            values = values.filter(lengths > 0).explode()
            if feature.weights:
                weights = frame[feature.weights].filter(lengths > 0).explode()
                tensors[feature.name + WEIGHTS_SUFFIX] = weights.to_torch()
            values = string_keys(values) if feature.key_type is KeyType.STRING else values
        keys = values.fill_null(MISSING_KEY) if values.null_count() else values
        tensors[feature.name] = keys.to_torch()
    return tensors


def read_raw(path: Path, schema: Schema, reader: Reader, *, chunk_rows: int = 65_536) -> Iterator[pl.DataFrame]:
    """Rows to be scored, normalised, with `__row__` (Int64, from 0).

    Those passthrough columns that the file has are kept, and what `reader` says of keys that side tables do not know.

    Raises:
        DataError: the file is unreadable, lacks a feature of the schema, or holds a bad value.
    """
    row = 0
    for frame in reader.frames(path, chunk_rows):
        kept = [name for name in frame.columns if name in schema.passthrough or name.startswith((UNKNOWN, EMPTY))]
        frame = normalise(frame, schema, Origin(path=str(path), first_row=row), label=False, other=kept)
        yield frame.with_columns(pl.int_range(row, row + frame.height, dtype=pl.Int64, eager=True).alias(ROW))
        row += frame.height


def unknown_keys(frame: pl.DataFrame) -> dict[str, int]:
    """Rows whose key no side table knows, by key, and rows with an empty history, by `EMPTY` and its list."""
    names = [name for name in frame.columns if name.startswith((UNKNOWN, EMPTY))]
    return {name.removeprefix(UNKNOWN): int(frame[name].sum()) for name in names}


def warn_of_unknown(unknown: Mapping[str, int], num_rows: int) -> None:
    """Say how many of all rows have such keys, if any, and how many an empty history."""
    for key, count in unknown.items():
        if key.startswith(EMPTY):
            level = logging.WARNING if count == num_rows else logging.INFO
            name = key.removeprefix(EMPTY)
            logger.log(level, "%d of %d rows have an empty %r: no earlier event of their user", count, num_rows, name)
        elif count:
            logger.warning(
                "%d of %d rows have a %r that no side table knows: what it would say is missing there",
                *(count, num_rows, key),
            )
