"""One process at a time writes a folder: a lock file beside it, which `kill -9` releases too."""

import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from recsys.core.errors import StageError

logger = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Hold `<folder>.lock`, which is deleted afterwards, with the folders above that it needed if they stayed empty.

    Args:
        wait: for whoever holds it, instead of refusing.

    Raises:
        StageError: another process holds it, or it cannot be written.
    """
    path = folder.with_name(folder.name + ".lock")
    made = [above for above in path.parents if not above.exists()]
    file = _open_lock(path)
    try:
        _lock(file, folder, wait=wait)
        while not _is_current(file, path):  # who held it before has deleted it: what counts is the file there now
            file.close()
            file = _open_lock(path)
            _lock(file, folder, wait=wait)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        file.close()  # the lock goes with it, also by kill -9
        _remove_empty(made)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Delete these folders, the deepest first, as far as there is nothing in them."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # what stays in it was made under the lock, or by another process since
            return


def _open_lock(path: Path) -> TextIO:
    try:
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # whoever had made the folder took it away again
                return path.open("w")
    except OSError as error:
        raise StageError(
            f"{path}: cannot be written ({error.strerror}). Set runs=<a folder you may write to>."
        ) from error


def _lock(file: TextIO, folder: Path, *, wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if not wait:
            raise StageError(
                f"{folder} is being written by another process (lock {file.name}). Wait for it, or choose another "
                "name=…"
            ) from error
        logger.info("waiting for the process that is making %s", folder)
        fcntl.flock(file, fcntl.LOCK_EX)


def _is_current(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
