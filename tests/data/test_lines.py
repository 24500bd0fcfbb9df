"""The damaged line of a text file is named, also where values stand between quotes; sound lines pass."""

import csv
import io
import random
from pathlib import Path

import pytest

from recsys.core.errors import DataError
from recsys.data.ingest import ingest
from recsys.data.lines import damaged_line, is_damaged
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
