"""Files whose names say something else than their content, or that are named twice."""

import bz2
import gzip
import lzma
import tarfile
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import polars as pl
import pytest
import zstandard

from recsys.core.errors import DataError
from recsys.data.compression import read_bytes
from recsys.data.dataset import SplitConfig, SplitMethod
from recsys.data.ingest import ingest
from tests.data.test_bad_input import COMPRESSED, GOOD, HEADER, OPTIONS, table

ROWS = (HEADER + "".join(GOOD)).encode()


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_files_that_are_not_called_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "raw.csv").write_bytes(COMPRESSED[name](ROWS))
    with pytest.raises(DataError, match=rf"raw.csv: is compressed, and its name does not say so. Name it {name}"):
        ingest(table(tmp_path / "raw.csv"), tmp_path / "out", options=OPTIONS)


def archive(kind: str) -> bytes:
    file = BytesIO()
    if kind == "zip":
        with ZipFile(file, "w") as packed:
            packed.writestr("raw.csv", ROWS)
    else:
        with tarfile.open(fileobj=file, mode="w") as packed:
            member = tarfile.TarInfo("raw.csv")
            member.size = len(ROWS)
            packed.addfile(member, BytesIO(ROWS))
    return file.getvalue()


FOREIGN = {
    "zip archive. Unpack it": archive("zip"),
    "tar archive. Unpack it": archive("tar"),
    "packed with bzip2. Unpack it": bz2.compress(ROWS),
    "packed with xz. Unpack it": lzma.compress(ROWS),
    "UTF-16 text. Convert it": ROWS.decode().encode("utf-16"),
    "UTF-32 text. Convert it": ROWS.decode().encode("utf-32"),
    "holds zero bytes: UTF-16 text": ROWS.decode().encode("utf-16-le"),
    "its lines end with a carriage return alone": ROWS.replace(b"\n", b"\r"),
}


@pytest.mark.parametrize("told", FOREIGN)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_text_with_lines(tmp_path: Path, told: str, packed: bool) -> None:
    path = tmp_path / ("raw.csv.gz" if packed else "raw.csv")
    path.write_bytes(gzip.compress(FOREIGN[told]) if packed else FOREIGN[told])
    with pytest.raises(DataError, match=rf"{path.name}: .*{told}"):
        ingest(table(path), tmp_path / "out", options=OPTIONS)


@pytest.mark.parametrize("start", ["PAR1", "ARROW1", "BZh", "BZh9"])
def test_ids_that_begin_like_another_format(tmp_path: Path, start: str) -> None:
    (tmp_path / "ids.csv").write_text(f"{start},1\n")
    assert b"".join(read_bytes(tmp_path / "ids.csv")) == f"{start},1\n".encode()


def test_archives_are_told_however_they_are_packed(tmp_path: Path) -> None:
    told = "is a tar archive. Unpack it"
    (tmp_path / "raw.tgz").write_bytes(gzip.compress(archive("tar")))
    pieces = [zstandard.compress(archive("tar")[start : start + 100]) for start in range(0, 600, 100)]
    (tmp_path / "raw.tar.zst").write_bytes(b"".join(pieces))
    for path in (tmp_path / "raw.tgz", tmp_path / "raw.tar.zst"):
        with pytest.raises(DataError, match=rf"{path.name}: {told}"):
            ingest(table(path), tmp_path / "out", options=OPTIONS)


def test_parquet_read_as_text(tmp_path: Path) -> None:
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "raw.tsv")
    with pytest.raises(DataError, match=r"raw.tsv: is a Parquet file, read as text. Name it .parquet"):
        ingest(table(tmp_path / "raw.tsv"), tmp_path / "out", options=OPTIONS)


def test_a_file_that_is_named_twice(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_bytes(ROWS)
    name, pattern = str(tmp_path / "raw.csv"), str(tmp_path / "*.csv")
    given = SplitConfig(method=SplitMethod.GIVEN)
    twice = {"files": (), "train": (name,), "validation": (name,), "test": (pattern,), "split": given}
    for changes in ({"files": (name, pattern)}, twice):
        with pytest.raises(DataError, match=r"raw.csv: is named more than once.*Name each file once"):
            ingest(table(tmp_path / "raw.csv", **changes), tmp_path / "out", options=OPTIONS)
