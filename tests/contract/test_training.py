"""Every method trains: two ranks follow one process, and an interrupted training goes on to the same weights."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.methods import METHODS, load

Outcomes = dict[int, Path]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Folder of the outcomes of one process, and of two ranks; all methods at once, because processes start slowly."""
    folders = {ranks: tmp_path_factory.mktemp(f"ranks{ranks}") for ranks in (1, 2)}
    for ranks, folder in folders.items():
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
        command = [sys.executable, "-W", "ignore", *launcher, "-m", "tests.contract.train_worker", str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        # A rank that fails alone leaves the other waiting: better told than waited for.
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, cwd=ROOT, timeout=900
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return folders


def read(folder: Path, method: str) -> dict[str, Any]:
    load(method)  # skips what leaves something to the user
    failure = folder / f"{method}.txt"
    assert not failure.exists(), failure.read_text()
    found: dict[str, Any] = torch.load(folder / f"{method}.pt", weights_only=True)
    return found


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_follow_one_process(method: str, outcomes: Outcomes) -> None:
    one, two = (read(outcomes[ranks], method) for ranks in (1, 2))
    assert two["losses"] == pytest.approx(one["losses"], abs=2e-5)
    assert one["weights"].keys() == two["weights"].keys()
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=1e-4, atol=1e-4, msg=f"{name} differs")


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_training_goes_on_to_the_same_weights(method: str, outcomes: Outcomes) -> None:
    found = read(outcomes[1], method)
    assert found["weights"].keys() == found["resumed"].keys()
    for name, weight in found["weights"].items():
        assert torch.equal(found["resumed"][name], weight), name


@pytest.mark.parametrize("method", METHODS)
def test_training_moves_every_table_and_lowers_the_loss(method: str, outcomes: Outcomes) -> None:
    losses = read(outcomes[1], method)["losses"]
    half = len(losses) // 2
    assert sum(losses[half:]) < sum(losses[:half])
