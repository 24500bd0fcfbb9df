"""One verified bundle for all tests that only read it."""

from pathlib import Path

import pytest

from recsys.export.bundle import write_bundle
from tests.export.bundles import LOOSE, METRICS, make_golden
from tests.export.world import make_trained


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    trained = make_trained("qr_product")
    write_bundle(
        folder, trained, make_golden("qr_product"), config=LOOSE, metrics=METRICS, lineage={"run": "r1", "epochs": 3}
    )
    return folder
