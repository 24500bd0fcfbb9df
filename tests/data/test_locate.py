"""Input files by path, pattern and address of another store."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.data import locate
from recsys.data.dataset import SplitConfig, SplitMethod
from recsys.data.ingest import IngestOptions, ingest
from recsys.data.locate import CACHE, located
from recsys.data.table import TableDataset
from tests.data.conftest import CATEGORICAL, NUMERIC, small_frame


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    """fsspec's memory store, and a folder of copies of its own."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    forget()
    yield memory
    memory.rm("/", recursive=True)
    forget()


def forget() -> None:
    """As a new process knows nothing."""
    locate._remote.cache_clear()


def test_patterns_find_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.txt", "deep/d.csv", "[x].csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.csv").mkdir()

    def names(*given: str) -> list[str]:
        return [str(path.relative_to(tmp_path)) for path in located(f"{tmp_path}/{name}" for name in given)]

    assert names("c.txt", "*.csv") == ["c.txt", "[x].csv", "a.csv", "b.csv"]
    assert names("**/*.csv") == ["[x].csv", "a.csv", "b.csv", "deep/d.csv"]
    assert names("[x].csv") == ["[x].csv"]  # a file of that very name
    assert names("[ab].csv") == ["a.csv", "b.csv"]
    assert names("missing.csv") == ["missing.csv"]  # whoever reads it says so


def test_relative_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").touch()
    monkeypatch.chdir(tmp_path)
    assert located(["*.csv", "a.csv"]) == (Path("a.csv"), Path("a.csv"))


def test_addresses_of_local_files_are_not_copied(tmp_path: Path, store: fsspec.AbstractFileSystem) -> None:
    (tmp_path / "a.csv").touch()
    assert located([f"file://{tmp_path}/a.csv", f"file://{tmp_path}/*.csv"]) == (tmp_path / "a.csv",) * 2
    assert not (tmp_path / "cache").exists()


def test_files_of_a_store_are_copied_once_and_again_when_they_change(
    tmp_path: Path, store: fsspec.AbstractFileSystem
) -> None:
    store.pipe("/day=1/part-0.csv", b"one")
    store.pipe("/day=2/part-0.csv", b"two")
    first, second = located(["memory://day=*/part-*.csv"])
    assert (first.name, first.read_bytes(), second.read_bytes()) == ("part-0.csv", b"one", b"two")
    modified = first.stat().st_mtime_ns
    forget()
    assert located(["memory://day=*/part-*.csv"]) == (first, second)
    assert first.stat().st_mtime_ns == modified
    store.pipe("/day=1/part-0.csv", b"other")
    forget()
    changed, same = located(["memory://day=*/part-*.csv"])
    assert changed != first and changed.read_bytes() == b"other" and same == second
    assert not list((tmp_path / "cache").glob("part-*"))


def test_a_data_set_of_a_store_is_that_of_its_files(tmp_path: Path, store: fsspec.AbstractFileSystem) -> None:
    frame = small_frame()
    pieces = [frame[:300], frame[300:]]
    for number, piece in enumerate(pieces):
        piece.write_csv(tmp_path / f"{number}.csv")
    shutil.copy(tmp_path / "0.csv", tmp_path / "zero.csv")
    for number in range(len(pieces)):
        store.put_file(str(tmp_path / f"{number}.csv"), f"/rows/{number}.csv")
    split = SplitConfig(method=SplitMethod.HASH)
    manifests = [
        ingest(
            TableDataset(label="label", files=(files,), numeric=NUMERIC, categorical=CATEGORICAL, split=split),
            tmp_path / name,
            options=IngestOptions(),
        )
        for name, files in {"here": str(tmp_path / "[01].csv"), "there": "memory://rows/*.csv"}.items()
    ]
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("nothing/*.csv", DataError, r"nothing/\*.csv: no file fits this pattern"),
        ("memory://nothing/*.csv", DataError, "no file fits this pattern"),
        ("memory://nothing/a.csv", DataError, "no such file. Correct the address"),
        ("nowhere://bucket/a.csv", ConfigError, "Protocol not known: nowhere.*Install the library"),
    ],
)
def test_what_is_not_there_is_refused(
    name: str, kind: type[Exception], message: str, store: fsspec.AbstractFileSystem
) -> None:
    with pytest.raises(kind, match=message):
        located([name])
