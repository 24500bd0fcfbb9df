"""Timestamps: raw columns of many forms to UTC datetimes, and back to how a client would write them."""

import polars as pl

from recsys.core.schema import MISSING_KEY, Schema, TimeForm, Timestamp
from recsys.data.faults import Faults

TIME_TYPE = pl.Datetime("us", "UTC")
UNITS = {TimeForm.SECONDS: 1_000_000, TimeForm.MILLISECONDS: 1_000}
LAST_SECOND = 253_402_300_799  # of the year 9999; and as many before 1970

ISO_FORMS = (
    (r"^(\d{4}-\d\d-\d\d)$", "${1}T00:00"),
    (r"^(\d{4}-\d\d-\d\d) ", "${1}T"),
    (r"^(.{10}T\d\d:\d\d)($|Z|[+-])", "${1}:00${2}"),
    (r"(T[\d:.]+)Z?$", "${1}+00:00"),
)
"""What to replace by what, one after the other, so that a text has day, time with seconds, and zone."""


def times_of(column: pl.Series, timestamp: Timestamp, faults: Faults) -> pl.Series:
    """A column as `TIME_TYPE`, null where missing; one of that type stays as it is."""
    if column.dtype.is_temporal() and column.dtype not in (pl.Time, pl.Duration):
        times = column.cast(pl.Datetime("us")) if column.dtype == pl.Date else column.dt.cast_time_unit("us")
        zoned = getattr(times.dtype, "time_zone", None) is not None
        return times.dt.convert_time_zone("UTC") if zoned else times.dt.replace_time_zone("UTC")
    if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        faults.refuse(column, column.is_not_null(), f"is {column.dtype}, no time. Write times, numbers or text.")
    if timestamp.form in UNITS:
        times = _from_numbers(column, UNITS[timestamp.form])
    else:
        texts = column.cast(pl.String, strict=False)
        times = _from_text(texts, timestamp)
    given = column.is_not_null() & (column != "") if column.dtype == pl.String else column.is_not_null()
    pattern = f" of pattern {timestamp.pattern!r}" if timestamp.pattern else ""
    problem = (
        f"is no time of form {timestamp.form.value}{pattern}. Correct it, or the form of the timestamp in the schema."
    )
    faults.note(column, times.is_null() & given, problem)
    return times


def _from_numbers(column: pl.Series, microseconds: int) -> pl.Series:
    texts = column.dtype in (pl.String, pl.Categorical, pl.Enum)
    # A column with missing values was a float column to who wrote it, so that `1600000000.0` is a whole number.
    column = column.cast(pl.String).str.replace(r"\.0+$", "") if texts else column
    numbers = column.cast(pl.Int64, strict=False)
    if column.dtype.is_float() or column.dtype.is_decimal():
        numbers = numbers.set(numbers.cast(pl.Float64) != column.cast(pl.Float64), None)
    limit = LAST_SECOND * 1_000_000 // microseconds
    numbers = numbers.set((numbers > limit) | (numbers < -limit), None)
    return (numbers * microseconds).cast(TIME_TYPE)


def _from_text(texts: pl.Series, timestamp: Timestamp) -> pl.Series:
    if timestamp.form is TimeForm.ISO:
        # Written out in one way: polars would guess the form of a whole column from its first value.
        for written_as, meant in ISO_FORMS:
            texts = texts.str.replace(written_as, meant)
        return texts.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", strict=False, time_unit="us").cast(TIME_TYPE)
    # A time needs hour and minute; where the pattern has none they are 0.
    pattern = timestamp.pattern
    for part in ("%H", "%M"):
        if part not in pattern:
            texts, pattern = texts + " 00", f"{pattern} {part}"
    return texts.str.to_datetime(pattern, strict=False, time_zone="UTC", time_unit="us")


def seconds_of(times: pl.Series) -> pl.Series:
    """Whole seconds since 1970 in UTC, Int64; `MISSING_KEY` where missing: what a model is given."""
    return (times.dt.timestamp("us") // 1_000_000).fill_null(MISSING_KEY)


def written(frame: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """The frame with its input timestamps in the form that the schema reads."""
    for timestamp in schema.input_times:
        times = pl.col(timestamp.name)
        if timestamp.form in UNITS:
            frame = frame.with_columns(times.dt.timestamp("us") // UNITS[timestamp.form])
        else:
            frame = frame.with_columns(times.dt.strftime(timestamp.pattern or "%Y-%m-%dT%H:%M:%S"))
    return frame
