"""The share of look-ups that a plan cannot tell apart, as data checks show it, against counting every look-up."""

from pathlib import Path

import pytest
import torch

from pipelines.evaluate import colliding_shares
from pipelines.model import plan_tables
from pipelines.predictions import split_files
from recsys.core.manifest import Manifest
from recsys.core.modules import Remap
from tests.pipelines.world import SMALL, do, make_run

DHE = "dhe embedding.num_hashes=8 embedding.num_layers=1 embedding.compression_ratio=4"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colliding")
    do("ingest", folder, *SMALL)
    return folder


def test_every_column_has_its_share(runs: Path) -> None:
    run = make_run(runs, *SMALL, "embedding=hash", "embedding.compression_ratio=4")
    data = run.stage("ingest")
    manifest = Manifest.read(data)
    plan = plan_tables(run.config, manifest)
    shares = colliding_shares(plan, manifest)
    assert set(shares) == {column.name for column in manifest.schema.categorical}
    for entry in plan.features:
        name = entry.feature.name
        if name == "tags":
            continue
        remap = entry.remap.build()
        assert isinstance(remap, Remap)
        rows = remap(torch.arange(entry.feature.num_embeddings or 0))[0]
        ids = torch.cat([frame[name].to_torch() for frame in split_files(data, "train", [name])])
        counted = float((torch.bincount(rows)[rows[ids]] > 1).double().mean())
        assert shares[name].value == pytest.approx(counted, abs=0.1), name  # expected by octave of frequency
    assert max(share.value_or(0) for share in shares.values()) > 0.2


@pytest.mark.parametrize(("method", "values"), [("full", {0.0}), (DHE, {0.0, None})])
def test_whole_tables_share_nothing_and_computed_embeddings_have_no_rows(
    method: str, values: set[float | None], runs: Path
) -> None:
    run = make_run(runs, *SMALL, *f"embedding={method}".split())
    manifest = Manifest.read(run.stage("ingest"))
    plan = plan_tables(run.config, manifest)
    shares = colliding_shares(plan, manifest)
    assert {share.value for share in shares.values()} == values  # small columns stay whole, whatever is asked for
    for entry in plan.features:
        assert shares[entry.feature.name].defined == bool(entry.tables)
