"""The disk fills up while a stage writes: a named error, nothing lost, and the stage goes on once there is space."""

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recsys.core.errors import StageError
from tests.pipelines.world import SMALL, contents, do, finished, make_run


@contextmanager
def small_disk(limit_bytes: int) -> Iterator[None]:
    """No file may grow beyond the limit: writes fail in the kernel, in whatever library and thread they happen."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("stage", "limit_bytes"),
    [
        ("ingest", 0),
        ("ingest", 20_000),
        ("train", 2_000),
        ("train", 20_000),
        ("evaluate", 20_000),
        ("export", 20_000),
        ("predict", 2_000),
    ],
)
def test_full_disk(stage: str, limit_bytes: int, runs: Path) -> None:
    """The disk fills up beside finished results, which stay; once there is space the stage goes on to its end."""
    again = make_run(runs, *SMALL).stage(stage)
    for folder in (again, *((runs / "small" / "export",) if stage == "evaluate" else ())):
        shutil.rmtree(folder, ignore_errors=True)
    before, ready = contents(runs), finished(runs)
    with (
        small_disk(limit_bytes),
        pytest.raises(StageError, match=rf"no space left on the disk while {stage} wrote .*Free some space"),
    ):
        do(stage, runs, *SMALL)
    assert finished(runs) == ready and not list(again.glob("*"))
    after = contents(runs)
    assert {path: after.get(path) for path in before} == before
    do(stage, runs, *SMALL)
    assert any(again.iterdir())
