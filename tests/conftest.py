"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of the real public data sets; the test skips where there is none (their licences forbid committing them)."""
    folder = Path(os.environ.get("RECSYS_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set RECSYS_DATA to the folder that holds criteo-sample/ and frappe/")
    return folder
