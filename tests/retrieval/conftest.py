"""Real implicit feedback, ingested once."""

from pathlib import Path

import pytest

from tests.pipelines.world import do


@pytest.fixture(scope="session")
def ml_1m_implicit(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ingested folder of ml-1m-implicit; skips where the data is not."""
    if not (data_folder / "ml-1m-implicit").is_dir():
        pytest.skip(f"no ml-1m-implicit in {data_folder}")
    files = [f"dataset.{split}.files=[{data_folder}/ml-1m-implicit/{split}.txt.zst]" for split in ("train", "test")]
    runs = tmp_path_factory.mktemp("ml1m") / "runs"
    return do("ingest", runs, "dataset=ml_1m_implicit", "name=x", *files).stage("ingest")
