"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of the real public data sets; tests skip where it is not (their licences forbid committing them)."""
    folder = Path(os.environ.get("RECSYS_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}: set RECSYS_DATA to the folder that holds criteo-sample/ and frappe/")
    return folder
