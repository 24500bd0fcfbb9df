"""Where input files are: paths, patterns, and addresses of other stores, which are copied here once."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from glob import has_magic
from pathlib import Path

import fsspec
from fsspec.callbacks import Callback

from recsys.core.errors import ConfigError, DataError
from recsys.core.progress import ProgressBar
from recsys.data.fingerprint import fingerprint_of

CACHE = "RECSYS_CACHE"
"""Environment variable: the folder of the copies."""


def located(names: Iterable[str]) -> tuple[Path, ...]:
    """Local files of these names, in their order; those that a pattern fits in the order of their names.

    Args:
        names: paths; patterns (`*`, `?`, `[…]`, and `**` for any folders); and both with a protocol in front that
            fsspec knows, `s3://bucket/day=*/part-*.parquet`. A file of another store is copied below the folder that
            the environment variable RECSYS_CACHE names (default: ~/.cache/recsys), and again when it changes.
    Returns:
        Paths; one that is no pattern need not exist.

    Raises:
        ConfigError: the protocol is unknown, or its library is not installed.
        DataError: nothing fits a pattern, or the store refuses.
    """
    return tuple(path for name in names for path in _located(name))


def existing(path: Path, what: str) -> Path:
    """The path.

    Raises:
        DataError: there is no such file; it names `what` the file is.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such file ({what}). Correct the path of the dataset config, or set RECSYS_DATA to the folder "
            "of the data sets."
        )
    return path


def each_once(paths: Sequence[Path]) -> tuple[Path, ...]:
    """The paths.

    Raises:
        DataError: one is named twice, by name or pattern.
    """
    times = Counter(path.resolve() for path in paths)
    if twice := [str(path) for path in paths if times[path.resolve()] > 1]:
        raise DataError(
            f"{twice[0]}: is named more than once, by name or pattern. Its rows would count as often, and could be in "
            "train and test. Name each file once."
        )
    return tuple(paths)


def _located(name: str) -> tuple[Path, ...]:
    if "://" in name:
        return _remote(name)
    if Path(name).exists() or not has_magic(name):
        return (Path(name),)
    pattern = Path(name)
    found = Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
    return tuple(Path(path) for path in _some((str(path) for path in found if path.is_file()), name))


def _some(found: Iterable[str], name: str) -> list[str]:
    ordered = sorted(found)
    if not ordered:
        raise DataError(f"{name}: no file fits this pattern. Correct the pattern, or name the files.")
    return ordered


# Once a process: all stages of a run ask, and must be told the same.
@lru_cache(maxsize=1024)
def _remote(name: str) -> tuple[Path, ...]:
    try:
        store, path = fsspec.core.url_to_fs(name)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{name}: cannot be opened ({error}). Install the library of its protocol, or correct the address."
        ) from error
    try:
        found = _some(store.glob(path), name) if has_magic(path) else [path]
        if "file" in store.protocol or "local" in store.protocol:
            return tuple(Path(each) for each in found)
        return tuple(_copied(store, each) for each in found)
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file. Correct the address in the dataset config.") from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error}). Check the address, the network and the rights.") from error


class _Bar(Callback):  # type: ignore[misc]  # fsspec has no types
    """fsspec tells of its progress in bytes."""

    def __init__(self, bar: ProgressBar) -> None:
        super().__init__()
        self._bar = bar

    def relative_update(self, inc: int = 1) -> None:
        """So many bytes more."""
        self._bar.advance(inc)


def _copied(store: fsspec.AbstractFileSystem, path: str) -> Path:
    """The local copy of a store's file as it is now: another version is another folder."""
    key = fingerprint_of([type(store).__name__, path, store.ukey(path)])
    folder = Path(os.environ.get(CACHE, "~/.cache/recsys")).expanduser()
    target = folder / key / path.rpartition("/")[2]
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder, prefix="part-"))
        try:
            with ProgressBar(f"fetching {target.name}", total=int(store.size(path) or 0), unit="bytes") as bar:
                store.get_file(path, str(aside / target.name), callback=_Bar(bar))
            (aside / target.name).rename(target)
        finally:
            shutil.rmtree(aside)
    return target
