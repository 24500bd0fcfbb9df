"""Which columns of numbers weigh the values of a multi-valued column, by their names and lengths."""

from collections.abc import Sequence

import polars as pl

from recsys.data.profile import Profile, words_of

WEIGHT_WORDS = {"weight", "weights", "score", "scores", "tfidf", "confidence", "confidences", "importance"}


def weights_among(frame: pl.DataFrame, profiles: Sequence[Profile]) -> dict[str, str]:
    """The column of weights of each multi-valued column that has one.

    It is named after the other one (`words`, `word_weights`), or `weights` where one column alone fits, and holds one
    finite number for each value, on every row.
    """
    several = [p for p in profiles if not p.unusable and p.num_values > 1 and (p.is_list or p.separator)]
    found: dict[str, str] = {}
    for name in (profile.name for profile in profiles):
        if not words_of(name) & WEIGHT_WORDS:
            continue
        stem = words_of(name) - WEIGHT_WORDS
        named = [p for p in several if p.name != name and stem in (set(), words_of(p.name), _singular(p.name))]
        fit = [p.name for p in named if _weighs(frame[name], frame[p.name], p.separator)]
        if len(fit) == 1:
            found.setdefault(fit[0], name)
    return found


def _singular(name: str) -> set[str]:
    return words_of(name.removesuffix("s"))


def _weighs(column: pl.Series, values: pl.Series, separator: str) -> bool:
    """Whether there are as many finite numbers as values on every row, as ingest reads both."""
    numbers, texts = _lists(column, separator), _lists(values, separator)
    if numbers is None or texts is None:
        return False
    given = texts.list.eval(pl.element().filter(pl.element() != ""))
    flat = numbers.filter(numbers.list.len() > 0).explode().cast(pl.Float32, strict=False)
    return given.list.len().equals(numbers.list.len()) and bool(len(flat) and flat.is_finite().fill_null(False).all())


def _lists(column: pl.Series, separator: str) -> pl.Series | None:
    """Lists of text; None if the column holds no such."""
    if column.dtype == pl.String and separator:
        column = column.str.split(separator).list.eval(pl.element().filter(pl.element() != ""))
    if not isinstance(column.dtype, pl.List) or pl.Series(dtype=column.dtype.inner).dtype.is_nested():
        return None
    return column.cast(pl.List(pl.String), strict=False).fill_null(pl.Series([[]], dtype=pl.List(pl.String)))
