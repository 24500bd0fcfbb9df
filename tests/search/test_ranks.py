"""Two ranks train the supernet that one process trains: draws are of rows and ids, not of ranks."""

from pathlib import Path

import pytest
import torch

from pipelines.search import search_folder
from pipelines.search_report import read_choice
from pipelines.search_training import LAST, SUPERNET
from recsys.train import checkpoint
from tests.pipelines.test_retrieval import ENCODER, files
from tests.pipelines.test_retrieval import SMALL as NODES
from tests.pipelines.world import call, make_run
from tests.search.test_contract import OVERRIDES, QUICK

# Thresholds that move, so that rows are dropped; batches that two ranks share unequally.
OPTEMBED = ("search=optembed", *QUICK["optembed"], "search.threshold_learning_rate=0.01")


@pytest.mark.parametrize("kind", ["clicks", "users_and_items"])
def test_two_ranks_find_what_one_process_finds(kind: str, tmp_path: Path) -> None:
    clicks = (*OVERRIDES, "train.batch_size=130", "model.dropout=0")
    nodes = (*NODES, *ENCODER, *files(tmp_path), "train.epochs=2", "search.compression_ratio=4")
    given = (*OPTEMBED, *(clicks if kind == "clicks" else nodes))
    weights, choices = [], []
    for ranks in (1, 2):
        options = (*given, f"name=on_{ranks}")
        ended = call("search", tmp_path / "runs", *options, f"train.run_on.num_processes={ranks}")
        assert ended.returncode == 0, ended.stderr[-3000:]
        folder = search_folder(make_run(tmp_path / "runs", *options))
        weights.append(checkpoint.read_tensors(folder / "work" / SUPERNET / LAST, "model."))
        choices.append(read_choice(folder / "plan.json"))
    one, two = weights
    assert one.keys() == two.keys() and any("threshold" in name for name in one)
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=1e-4)
    assert choices[0] == choices[1]
