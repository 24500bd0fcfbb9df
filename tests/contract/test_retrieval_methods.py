"""Every embedding method carries a retrieval model: it trains, is frozen, ranks, and some are exported."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from pipelines.retrieval_model import load_served, plan_nodes
from recsys.core.errors import ConfigError
from recsys.core.manifest import Manifest
from recsys.core.plan import TablePlan
from tests.contract.methods import METHODS, RATIOS, load
from tests.pipelines.test_retrieval import ENCODER, SMALL, files
from tests.pipelines.world import do, make_run

USER = torch.tensor([1])
EXPORTED = ("cafe", "dhe", "pq")
"""Rows that change hands, networks, codes made after training; a bundle holds vectors, whatever the method."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """A folder of results with the data ingested, and the overrides."""
    folder = tmp_path_factory.mktemp("methods")
    given = (*SMALL, *ENCODER, "train.epochs=2", *files(folder))
    do("ingest", folder / "runs", *given)
    return folder / "runs", given


def options(method: str, runs: Path, given: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the method with the smallest of some budgets that it accepts."""
    load(method)  # skips what leaves something to the user
    chosen: tuple[str, ...] = (f"embedding={method}", f"name={method}")
    if method == "mixed":  # its tables are planned, and start, as its parts say
        return (*chosen, "embedding.init.scale=1.0e-4", "embedding.default.init.scale=0.1")
    for ratio in RATIOS:
        smaller = (*chosen, f"embedding.compression_ratio={ratio}")
        run = make_run(runs, *given, *smaller)
        try:
            plan_nodes(run, Manifest.read(run.stage("ingest")))
        except ConfigError:
            continue
        return smaller
    return chosen


@pytest.mark.parametrize("method", METHODS)
def test_a_method_goes_from_pairs_to_lists(method: str, data: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(data[0], runs)
    given = (*data[1], *options(method, *data))
    for stage in ("train", "evaluate", *(["export"] if method in EXPORTED else [])):
        run = do(stage, runs, *given)
    metrics = json.loads((run.stage("evaluate") / "metrics.json").read_text())
    assert 0.2 < metrics["recall_at_10"] <= 1  # chance has some 10 of 31 items, of which a user met a third
    recommender, served = load_served(run)
    assert served is not None and recommender(USER, USER, torch.tensor([0, 1])).shape == (1, 41)
    trained = TablePlan.from_json((run.stage("train") / "plan.json").read_text())
    assert run.config.embedding.serving_plan(trained) == served
