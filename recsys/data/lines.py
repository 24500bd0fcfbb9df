"""Which lines of a block of delimited text are damaged, and how: also what a parser would let pass."""

import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt

QUOTE, NEWLINE, RETURN = ord('"'), ord("\n"), ord("\r")

Codes = npt.NDArray[np.uint8]

MISPLACED = (
    'a double quote opens inside a value, or the value that it opens does not end with one. Write " inside a quoted '
    'value as "", or set quoted=false if quotes mean nothing in this file.'
)


def damaged_line(block: bytes, *, separator: bytes, num_values: int, quoted: bool) -> tuple[int, str] | None:
    """The first line that is not UTF-8, has a misplaced quote or another number of values; None where all are sound.

    Args:
        block: whole lines, the last with its newline.
        quoted: values may stand between double quotes, and then hold separators and newlines.
    Returns:
        (Number of lines before it, what is wrong with it).
    """
    codes = np.frombuffer(block, np.uint8)
    quotes = np.flatnonzero(codes == QUOTE) if quoted else np.empty(0, np.int64)
    misplaced = _misplaced_quote(codes, quotes, separator[0])
    # Behind a misplaced quote nobody knows which newlines end rows.
    known = codes if misplaced is None else codes[: _end_of_rows(codes[: misplaced[0]])]
    faults = [_not_utf8(block), misplaced, _ragged(known, separator[0], num_values, quoted)]
    found = [fault for fault in faults if fault is not None]
    if not found:
        return None
    position, problem = min(found)
    return block.count(b"\n", 0, position), problem


def is_damaged(block: bytes, *, separator: bytes, num_values: int, quoted: bool) -> bool:
    """True if some line cannot have `num_values` values, or a quote is misplaced."""
    if not (quoted and b'"' in block):
        # NumPy, because bytes.count stops at every one of these, and a line has many.
        separators = np.count_nonzero(np.frombuffer(block, np.uint8) == separator[0])
        return bool(separators != (num_values - 1) * block.count(b"\n"))
    # A parser takes two stray quotes for one long value, and the lines between them for its text.
    if has_misplaced_quote(block, separator=separator):
        return True
    return _ragged(np.frombuffer(block, np.uint8), separator[0], num_values, quoted) is not None


def has_misplaced_quote(block: bytes, *, separator: bytes) -> bool:
    """True if double quotes stand elsewhere than around values."""
    codes = np.frombuffer(block, np.uint8)
    return _misplaced_quote(codes, np.flatnonzero(codes == QUOTE), separator[0]) is not None


def end_of_rows(block: bytes, *, separator: bytes) -> int:
    """Position after the last newline that ends a row; 0 where none does. `block` begins with a row.

    Args:
        separator: of values that may stand between double quotes; b"": quotes are text.
    """
    end = block.rfind(b"\n") + 1
    if not separator or block.find(b'"', 0, end) < 0:
        return end
    codes = np.frombuffer(block, np.uint8, count=end)
    if _badly_placed(codes, np.flatnonzero(codes == QUOTE), separator[0]).size:
        # Their number says nothing then: a stray one and that of a value which goes on behind the end are two.
        rows, begun = _patterns(separator)
        lines = (match.start() for match in rows.finditer(block, 0, end) if match["line"])
        return next((at for at in lines if begun.match(block, at, end)), end)
    return _end_of_rows(codes)


@lru_cache
def _patterns(separator: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """(A row with quotes around values only, or else a `line`; a row whose last value goes on behind the end)."""
    between = re.escape(separator)
    inside = rb'"(?:[^"]++|"")*+'
    value = rb'(?:%b"|[^"\n%b]*+)' % (inside, between)
    row = rb"%b(?:%b%b)*+\r?\n" % (value, between, value)
    return re.compile(rb"%b|(?P<line>[^\n]*+\n)" % row), re.compile(rb"(?:%b%b)*+%b\Z" % (value, between, inside))


def _not_utf8(block: bytes) -> tuple[int, str] | None:
    try:
        block.decode()
    except UnicodeDecodeError as error:
        return error.start, f"byte 0x{block[error.start]:02x} is not UTF-8. Convert the file to UTF-8."
    return None


def _one_of(codes: Codes, wanted: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    table = np.zeros(256, np.bool_)
    table[list(wanted)] = True
    return table[codes]


def _misplaced_quote(codes: Codes, quotes: npt.NDArray[np.int64], separator: int) -> tuple[int, str] | None:
    bad = _badly_placed(codes, quotes, separator)
    if quotes.size % 2:
        bad = np.append(bad, quotes[-1])
    return (int(bad.min()), MISPLACED) if bad.size else None


def _badly_placed(codes: Codes, quotes: npt.NDArray[np.int64], separator: int) -> npt.NDArray[np.int64]:
    """A quote that opens a value must follow a separator or newline, one that closes it must precede one."""
    opening, closing = quotes[0::2], quotes[1::2]
    # Doubled quotes inside a value look like one that closes and one that opens at once.
    before = _one_of(codes[opening - 1], (separator, NEWLINE, QUOTE)) | (opening == 0)
    after = _one_of(codes[closing + 1], (separator, NEWLINE, QUOTE))
    after |= (codes[closing + 1] == RETURN) & (codes[np.minimum(closing + 2, codes.size - 1)] == NEWLINE)
    return np.concatenate([opening[~before], opening[: closing.size][~after]])


def _end_of_rows(codes: Codes) -> int:
    """Position after the last newline that ends a row, where all quotes stand around values; 0 where none does."""
    ends = np.flatnonzero((codes == NEWLINE) & _outside(codes, quoted=True))
    return int(ends[-1]) + 1 if ends.size else 0


def quotes_enclose(block: bytes, *, separator: bytes) -> bool:
    """True if double quotes stand around values, in most rows that have any. `block` begins with a row."""
    quoted = [match["line"] is None for match in _patterns(separator)[0].finditer(block) if b'"' in match[0]]
    return 2 * sum(quoted) > len(quoted)


def first_row(block: bytes, *, separator: bytes) -> bytes | None:
    """The block's first row with its newline; None where a quote in it is misplaced.

    Args:
        separator: of values that may stand between double quotes; b"": quotes are text.
    """
    if not separator:
        return block[: block.find(b"\n") + 1]
    row = _patterns(separator)[0].match(block)
    return row[0] if row is not None and row["line"] is None else None


def num_rows(block: bytes, *, separator: bytes) -> int:
    """Rows of whole lines; a newline between double quotes ends none. A line with a misplaced quote is a row.

    Args:
        separator: of values that may stand between double quotes; b"": quotes are text.
    """
    if not (separator and b'"' in block):
        return block.count(b"\n")
    codes = np.frombuffer(block, np.uint8)
    quotes = np.flatnonzero(codes == QUOTE)
    if _misplaced_quote(codes, quotes, separator[0]) is not None:
        return sum(1 for _ in _patterns(separator)[0].finditer(block))
    newlines = np.flatnonzero(codes == NEWLINE)
    return int((np.searchsorted(quotes, newlines) & 1 == 0).sum())


def without_damaged(
    block: bytes, *, separator: bytes, num_values: int, quoted: bool
) -> tuple[bytes, dict[int, tuple[str, str]]]:
    """The block with empty rows in place of those that are ragged, have a misplaced quote or are not UTF-8.

    Returns:
        (the block, (text, what is wrong) by row).
    """
    empty, misplaced = separator * (num_values - 1), dict[int, tuple[str, str]]()
    if quoted and has_misplaced_quote(block, separator=separator):
        block, misplaced = _without_misplaced(block, separator, empty)
    codes = np.frombuffer(block, np.uint8)
    ends, found = _rows(codes, separator[0], quoted)
    problems = {
        int(row): _told(int(found[row]), num_values, separator[0]) for row in np.flatnonzero(found != num_values)
    }
    starts = np.concatenate([[0], ends[:-1] + 1])
    if _not_utf8(block) is not None:
        lines = ((row, block[start:end]) for row, (start, end) in enumerate(zip(starts, ends, strict=True)))
        problems |= {row: told[1] for row, line in lines if (told := _not_utf8(line)) is not None}
    pieces, damaged, at = [], misplaced, 0
    for row, problem in sorted(problems.items()):
        start, end = int(starts[row]), int(ends[row])
        damaged[row] = (_text(block[start:end]), problem)
        pieces += [block[at:start], empty]
        at = end
    return b"".join([*pieces, block[at:]]), damaged


def _without_misplaced(block: bytes, separator: bytes, empty: bytes) -> tuple[bytes, dict[int, tuple[str, str]]]:
    """Nobody knows where a row with a misplaced quote was to end: it ends with its line."""
    pieces, damaged = [], {}
    for row, match in enumerate(_patterns(separator)[0].finditer(block)):
        pieces.append(empty + b"\n" if match["line"] else match[0])
        if match["line"]:
            damaged[row] = (_text(match["line"]), MISPLACED)
    return b"".join(pieces), damaged


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r\n")


def _outside(codes: Codes, *, quoted: bool) -> npt.NDArray[np.bool_]:
    """By byte: it stands outside of double quotes."""
    return (np.cumsum(codes == QUOTE, dtype=np.uint8) & 1) == 0 if quoted else np.ones(codes.size, np.bool_)


def _rows(codes: Codes, separator: int, quoted: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(Position of the newline that ends each row, number of values of each row)."""
    outside = _outside(codes, quoted=quoted)
    ends = np.flatnonzero((codes == NEWLINE) & outside)
    separators = np.flatnonzero((codes == separator) & outside)
    return ends, np.diff(np.searchsorted(separators, ends), prepend=0) + 1


def _ragged(codes: Codes, separator: int, num_values: int, quoted: bool) -> tuple[int, str] | None:
    ends, found = _rows(codes, separator, quoted)
    bad = np.flatnonzero(found != num_values)
    if not bad.size:
        return None
    return int(ends[bad[0] - 1]) + 1 if bad[0] else 0, _told(int(found[bad[0]]), num_values, separator)


def _told(found: int, num_values: int, separator: int) -> str:
    return (
        f"{found} value(s), expected {num_values} separated by {chr(separator)!r}. The file is truncated, "
        "the line damaged, or separator or header set wrong."
    )
