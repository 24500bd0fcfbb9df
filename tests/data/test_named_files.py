"""Files whose names say something else than their content, or that are named twice."""

from pathlib import Path

import pytest

from recsys.core.errors import DataError
from recsys.data.dataset import SplitConfig, SplitMethod
from recsys.data.ingest import ingest
from tests.data.test_bad_input import COMPRESSED, GOOD, HEADER, OPTIONS, table

ROWS = (HEADER + "".join(GOOD)).encode()


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_files_that_are_not_called_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "raw.csv").write_bytes(COMPRESSED[name](ROWS))
    with pytest.raises(DataError, match=rf"raw.csv: is compressed, and its name does not say so. Name it {name}"):
        ingest(table(tmp_path / "raw.csv"), tmp_path / "out", options=OPTIONS)


def test_a_file_that_is_named_twice(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_bytes(ROWS)
    name, pattern = str(tmp_path / "raw.csv"), str(tmp_path / "*.csv")
    given = SplitConfig(method=SplitMethod.GIVEN)
    twice = {"files": (), "train": (name,), "validation": (name,), "test": (pattern,), "split": given}
    for changes in ({"files": (name, pattern)}, twice):
        with pytest.raises(DataError, match=r"raw.csv: is named more than once.*Name each file once"):
            ingest(table(tmp_path / "raw.csv", **changes), tmp_path / "out", options=OPTIONS)
