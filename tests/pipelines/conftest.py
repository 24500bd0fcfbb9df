"""One small run that tests copy, so that none of them can spoil another."""

import shutil
from pathlib import Path

import pytest

from tests.pipelines.world import SMALL, STAGES, do


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results with all stages of `SMALL` done. Do not write into it."""
    runs = tmp_path_factory.mktemp("small") / "runs"
    for stage in STAGES:
        do(stage, runs, *SMALL)
    return runs


@pytest.fixture
def runs(small_runs: Path, tmp_path: Path) -> Path:
    """A copy of `small_runs`."""
    return Path(shutil.copytree(small_runs, tmp_path / "runs"))
