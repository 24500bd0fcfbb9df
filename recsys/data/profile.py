"""What the values of a raw column look like: what a schema may be proposed from."""

from dataclasses import dataclass

import polars as pl

from recsys.core.schema import TimeForm, Timestamp
from recsys.data.faults import ANYWHERE, Faults
from recsys.data.raw import TRUTH
from recsys.data.times import times_of

TIME_NAMES = ("time", "date", "timestamp", "ts", "hour", "day", "created", "published")
SECONDS = (631_152_000, 4_102_444_800)  # 1990 to 2100
SEPARATORS = ("|", ";", " ", ",")
SAME = 0.999  # share of values that tells the form of a column; the others would be refused, or left out


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Counts of one column over the rows looked at."""

    name: str
    num_rows: int
    num_missing: int
    num_values: int  # different ones, missing left out
    most: str  # the most frequent value
    most_share: float  # of all rows
    once_share: float  # of all values given, those that occur once
    integers: float  # share of the values given that are 64-bit integers
    numbers: float  # share that are numbers, infinite ones among them
    num_infinite: int
    is_float: bool  # written as floats, whatever these are
    is_binary: bool  # 0 and 1, true and false
    low: float  # of the finite numbers
    high: float
    time_form: str  # form of a timestamp that all values have; "": none
    has_hours: bool  # whether such times are of several hours of the day
    separator: str  # between several values in one text; "": none
    is_list: bool
    unusable: str  # why no feature can be made of the column; "": one can
    longest: int  # values of the longest row

    @property
    def missing_share(self) -> float:
        """Share of rows without a value."""
        return self.num_missing / max(self.num_rows, 1)


def profile_of(column: pl.Series) -> Profile:
    """Look at a column, as its reader gives it."""
    unusable, column = _usable(column)
    given = _given(column)
    counts = given.value_counts(sort=True)
    integers, floats = _as_numbers(column, given)
    known, num_infinite = _finite(column, floats)
    separator = "" if isinstance(column.dtype, pl.List) else _separator(given)
    time_form = _time_form(column, known if len(known) >= SAME * len(given) else known.head(0), given)
    return Profile(
        name=column.name,
        num_rows=len(column),
        num_missing=_num_missing(column, given),
        num_values=counts.height,
        most=str(counts[0, 0]) if counts.height else "",
        most_share=int(counts["count"][0]) / len(column) if counts.height else 0.0,
        once_share=int((counts["count"] == 1).sum()) / max(len(given), 1),
        integers=_share(integers.is_not_null()),
        numbers=_share(floats.is_not_null()),
        num_infinite=num_infinite,
        is_float=column.dtype.is_float(),
        is_binary=bool(len(known) and len(known) == len(given) and known.is_in([0.0, 1.0]).all()),
        low=_float(known.min()),
        high=_float(known.max()),
        time_form=time_form,
        has_hours=bool(time_form) and _hours(column, TimeForm(time_form)) > 1,
        separator=separator,
        is_list=isinstance(column.dtype, pl.List),
        unusable=unusable,
        longest=_longest(column, given, separator),
    )


def _num_missing(column: pl.Series, given: pl.Series) -> int:
    if isinstance(column.dtype, pl.List):
        return int((column.list.len() == 0).sum()) + column.null_count()
    return len(column) - len(given)


def _longest(column: pl.Series, given: pl.Series, separator: str) -> int:
    """Values of the longest row."""
    if isinstance(column.dtype, pl.List):
        return int(_float(column.list.len().max()))
    return int(_float(given.str.split(separator).list.len().max())) if separator else 1


def _usable(column: pl.Series) -> tuple[str, pl.Series]:
    """(Why no feature can be made of the column, the column; in that case without values)."""
    why = _unusable(column)
    return why, pl.Series(column.name, [None] * len(column), dtype=pl.String) if why else column


def _as_numbers(column: pl.Series, given: pl.Series) -> tuple[pl.Series, pl.Series]:
    """(Integers, floats), null where a value is none; coded texts are texts to ingest, whatever they hold."""
    if column.dtype in (pl.Categorical, pl.Enum):
        given = given.set(given.is_not_null(), None)
    if column.dtype == pl.String:  # 00012 is a name: as a number it would be that of 12, as 0000e0 that of 0
        given = given.set(given.str.contains(r"^[+-]?0\d").fill_null(False), None)
    return given.cast(pl.Int64, strict=False), given.replace(TRUTH).cast(pl.Float64, strict=False)


def _finite(column: pl.Series, floats: pl.Series) -> tuple[pl.Series, int]:
    """(Those that are finite, how many are infinite): as float32, which is what ingest looks at, if written as floats.

    Text of larger numbers may be a name.
    """
    infinite = (floats.cast(pl.Float32) if column.dtype.is_float() else floats).is_infinite().fill_null(False)
    return floats.filter(floats.is_finite() & ~infinite), int(infinite.sum())


def _unusable(column: pl.Series) -> str:
    if any(mark in column.name for mark in (".", "@", "__")):
        return "'.', '@' and '__' cannot stand in the name of a feature; rename the column"
    inner = column.dtype.inner if isinstance(column.dtype, pl.List) else column.dtype
    number = column.dtype != inner and (inner.is_float() or inner.is_decimal())
    if inner.is_nested() or inner in (pl.Binary, pl.Duration, pl.Time) or number:
        return f"no feature is made of {column.dtype}"
    return ""


def _given(column: pl.Series) -> pl.Series:
    """All values but missing ones, as text."""
    values = column.explode() if isinstance(column.dtype, pl.List) else column
    values = values.fill_nan(None) if values.dtype.is_float() else values
    texts = (values.cast(pl.Int8) if values.dtype == pl.Boolean else values).cast(pl.String)
    return texts.replace("", None).drop_nulls()


def _share(holds: pl.Series) -> float:
    return int(holds.sum()) / max(len(holds), 1)


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def words_of(name: str) -> set[str]:
    """Of a column's name, in small letters."""
    return set(name.lower().replace("-", "_").split("_"))


def _time_form(column: pl.Series, numbers: pl.Series, given: pl.Series) -> str:
    if column.dtype.is_temporal():
        return "iso"
    if not len(given) or isinstance(column.dtype, pl.List):
        return ""
    if _share(given.str.contains(r"^\d{4}-\d\d-\d\d($|[ T]\d\d:\d\d)")) == 1:
        return "iso"
    named = words_of(column.name) & set(TIME_NAMES)
    if named and len(numbers) and (numbers == numbers.floor()).all():
        low, high = _float(numbers.min()), _float(numbers.max())
        if SECONDS[0] <= low <= high <= SECONDS[1]:
            return "seconds"
        if 1000 * SECONDS[0] <= low <= high <= 1000 * SECONDS[1]:
            return "milliseconds"
    return ""


def _hours(column: pl.Series, form: TimeForm) -> int:
    times = times_of(column, Timestamp(name=column.name, form=form), Faults(ANYWHERE, strict=False))
    return times.drop_nulls().dt.hour().n_unique()


def _separator(given: pl.Series) -> str:
    """A separator that a tenth of the texts have, with parts that repeat: else it belongs to the text."""
    for separator in SEPARATORS:
        if _share(given.str.contains(separator, literal=True)) >= 0.1:
            parts = given.str.split(separator).explode()
            if parts.n_unique() <= given.n_unique() and parts.n_unique() <= len(parts) / 4:
                return separator
    return ""
