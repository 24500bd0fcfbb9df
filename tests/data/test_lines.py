"""The damaged line of a text file is named, also where values stand between quotes; sound lines pass."""

import csv
import io
import random
from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.faults import FAULT
from recsys.data.ingest import ingest
from recsys.data.lines import damaged_line, end_of_rows, is_damaged, num_rows, without_damaged
from recsys.data.text import TextReader
from tests.data.test_bad_input import OPTIONS, table, with_row

QUOTE_CASES: dict[str, tuple[str, str]] = {
    "never closed": ('1,2,3,"x,a', r"line 22: a double quote opens inside a value, or the value .* quoted=false"),
    "closed too early": ('1,2,3,"x"y,a', r"line 22: a double quote"),
    "in the middle": ('1,2,3,x"y,a', r"line 22: a double quote"),
    "never closed, twice": ('1,2,3,"x,a\n1,2,4,y,b\n1,2,3,"x,a', r"line 22: a double quote"),
    "after a quoted newline": ('1,2,3,"x\ny",a\n1,2,3,"x,a', r"line 24: a double quote"),
    "too few values": ('1,2,3,"x"', r"line 22: 4 value\(s\), expected 5"),
    "too many values": ('1,2,"3","x",a,b', r"line 22: 6 value\(s\), expected 5"),
    "too few, too many": ('1,2,3,"x"\n1,2,3,"x",a,b', r"line 22: 4 value\(s\), expected 5"),
}


@pytest.mark.parametrize("case", QUOTE_CASES)
def test_bad_quotes(tmp_path: Path, case: str) -> None:
    row, message = QUOTE_CASES[case]
    (tmp_path / "raw.csv").write_bytes(with_row(row))
    with pytest.raises(DataError, match=rf"raw.csv, {message}"):
        ingest(table(tmp_path / "raw.csv"), tmp_path / "out", options=OPTIONS)


@pytest.mark.parametrize("seed", range(20))
def test_sound_rows_beside_misplaced_quotes_are_read_as_without_them(seed: int) -> None:
    """Values over several lines too."""
    draw = random.Random(seed)
    rows = [["".join(draw.choices('ab,"\n ü', k=draw.randrange(6))) for _ in range(4)] for _ in range(30)]
    parts = []
    for row in rows:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(row)
        parts.append(text.getvalue())
    stray = sorted(draw.sample(range(30), 4))
    for place in stray:
        parts[place] = 'x,y"z,1,2\n'
    block = "".join(parts).encode()
    emptied, damaged = without_damaged(block, separator=b",", num_values=4, quoted=True)
    assert list(damaged) == stray and {line for line, _ in damaged.values()} == {'x,y"z,1,2'}
    found = list(csv.reader(io.StringIO(emptied.decode(), newline="")))
    assert found == [[""] * 4 if place in stray else row for place, row in enumerate(rows)]
    assert num_rows(block, separator=b",") == num_rows(emptied, separator=b",") == 30
    assert end_of_rows(block + b'1,"a\nb', separator=b",") == len(block)


@pytest.mark.parametrize("size", [16, 50, 200])
@pytest.mark.parametrize("seed", range(10))
def test_rows_are_the_same_wherever_a_block_ends(
    seed: int, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a stray quote and that of a value which goes on behind the block's end are two."""
    draw = random.Random(seed)
    inner = ["1,2,3\n" * draw.randrange(9) for _ in range(30)]
    rows = [f'{i},"one\n{text}"",two",x\n' for i, text in enumerate(inner)]
    for place in draw.sample(range(30), 3):
        rows[place] = draw.choice(['x,y"z,1\n', 'x,"y" ,1\n', 'x,"y"z,1\n'])
    (tmp_path / "raw.csv").write_text("".join(rows))
    reader = TextReader(columns=("a", "b", "c"))
    (whole,) = reader.frames(tmp_path / "raw.csv", 1000, keep_damaged=True)
    assert whole.height == 30 and whole[FAULT].is_not_null().sum() == 3
    for name in ("blocks.BLOCK_BYTES", "compression.READ_BYTES"):
        monkeypatch.setattr(f"recsys.data.{name}", size)
    frames = list(reader.frames(tmp_path / "raw.csv", 1000, keep_damaged=True))
    assert pl.concat(frames, how="diagonal").select(whole.columns).equals(whole)
    assert reader.count_rows(tmp_path / "raw.csv") == 30


@pytest.mark.parametrize("seed", range(20))
def test_what_the_csv_module_writes_is_sound(seed: int) -> None:
    draw = random.Random(seed)
    rows = [["".join(draw.choices('ab,"\n ü', k=draw.randrange(6))) for _ in range(4)] for _ in range(30)]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        text = io.StringIO()
        csv.writer(text, quoting=quoting, lineterminator="\n").writerows(rows)
        block = text.getvalue().encode()
        assert damaged_line(block, separator=b",", num_values=4, quoted=True) is None
        assert not is_damaged(block, separator=b",", num_values=4, quoted=True)
        assert is_damaged(block, separator=b",", num_values=5, quoted=True)
