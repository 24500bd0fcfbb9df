"""Tell a full disk from other errors, whichever library was writing when it filled up."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.core.errors import StageError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk, the user's share of it, or the largest file that is allowed, is used up."""

SAID_AS = (*(f"os error {number}" for number in NO_SPACE), "unexpected pos")
"""In messages of libraries that hide the number: Polars; torch's zip writer, which notices a short write only."""


@contextmanager
def no_space_told(work: str, result: Path) -> Iterator[None]:
    """Turn a full disk during `work`, which writes beside `result`, into an error that says so.

    Raises:
        StageError: no space was left.
    """
    try:
        yield
    except BaseException as error:  # torch.distributed.checkpoint's own exception is no Exception
        if not is_full(error):
            raise
        said = " ".join(str(error).split())[-200:]
        raise StageError(
            f"no space left on the disk while {work} wrote for {result} ({said}). What was there before is as it was. "
            "Free some space, or choose a folder on another disk (runs=…), and start again."
        ) from error


def is_full(error: BaseException) -> bool:
    """True if `error`, or what caused it, is a write that found no space."""
    return any(
        cause.errno in NO_SPACE
        if isinstance(cause, OSError) and cause.errno is not None
        else any(text in str(cause) for text in SAID_AS)
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and what torch.distributed.checkpoint wraps, rank by rank."""
    yield error
    for failure in getattr(error, "failures", {}).values():
        yield from _causes(failure[0])
    if error.__cause__ is not None:
        yield from _causes(error.__cause__)
