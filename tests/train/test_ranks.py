"""One process, two ranks, any sharding: the same training. Checkpoints cross over; kill -9 changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).with_name("worker.py")
SHARDINGS = ["table_wise", "row_wise", "data_parallel"]


def command(folder: Path, sharding: str, epochs: int, ranks: int, *flags: str) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    return [sys.executable, "-W", "ignore", *launcher, str(WORKER), str(folder), sharding, str(epochs), *flags]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def train(
    folder: Path, sharding: str, *flags: str, epochs: int = 2, ranks: int = 1
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Train, or go on training, in `folder`; returns the losses of the steps done now, and the final weights."""
    folder.mkdir(exist_ok=True)
    started = command(folder, sharding, epochs, ranks, *flags)
    result = subprocess.run(started, capture_output=True, text=True, env=environment(), check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    losses: list[float] = json.loads((folder / "losses.json").read_text())["losses"]
    weights: dict[str, torch.Tensor] = torch.load(folder / "weights.pt", weights_only=True)
    return losses, weights


def assert_close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[float], dict[str, torch.Tensor]]]:
    folder = tmp_path_factory.mktemp("one")
    return {sharding: train(folder / sharding, sharding) for sharding in SHARDINGS}


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_two_ranks_follow_the_loss_curve_of_one_process(
    sharding: str, one_process: dict[str, tuple[list[float], dict[str, torch.Tensor]]], tmp_path: Path
) -> None:
    losses, weights = train(tmp_path / "two", sharding, ranks=2)
    expected_losses, expected_weights = one_process[sharding]
    assert losses == pytest.approx(expected_losses, abs=1e-5)
    assert_close(weights, expected_weights)


def test_two_ranks_weigh_rows_as_one_process_does(
    one_process: dict[str, tuple[list[float], dict[str, torch.Tensor]]], tmp_path: Path
) -> None:
    (losses, weights), (expected_losses, expected_weights) = (
        train(tmp_path / str(ranks), "row_wise", "weighted", ranks=ranks) for ranks in (2, 1)
    )
    assert losses == pytest.approx(expected_losses, abs=1e-5)
    assert losses != pytest.approx(one_process["row_wise"][0], abs=1e-2), "weights change nothing"
    assert_close(weights, expected_weights)
    found, expected = (json.loads((tmp_path / ranks / "losses.json").read_text())["auc"] for ranks in ("2", "1"))
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_table_wise_and_row_wise_are_the_same_training(
    sharding: str, one_process: dict[str, tuple[list[float], dict[str, torch.Tensor]]]
) -> None:
    if sharding == "data_parallel":  # another optimizer, but the same initial weights
        assert one_process[sharding][0][0] == pytest.approx(one_process["table_wise"][0][0], abs=1e-6)
    else:
        assert one_process[sharding][0] == pytest.approx(one_process["table_wise"][0], abs=1e-6)


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2)])
def test_checkpoint_of_other_ranks_is_taken_up(
    sharding: str,
    first: int,
    second: int,
    one_process: dict[str, tuple[list[float], dict[str, torch.Tensor]]],
    tmp_path: Path,
) -> None:
    before, _ = train(tmp_path / "run", sharding, epochs=1, ranks=first)
    after, weights = train(tmp_path / "run", sharding, epochs=2, ranks=second)
    expected_losses, expected_weights = one_process[sharding]
    assert before + after == pytest.approx(expected_losses, abs=1e-5)
    assert_close(weights, expected_weights)


def test_kill_and_restart_gives_bit_identical_weights(tmp_path: Path) -> None:
    epochs = 12
    _, expected = train(tmp_path / "whole", "table_wise", epochs=epochs)
    folder = tmp_path / "killed"
    folder.mkdir()
    kills = 0
    for wanted in (1, 4, 7):  # kill when about this many epochs are on disk, somewhere inside the next
        process = subprocess.Popen(
            command(folder, "table_wise", epochs, 1), stderr=subprocess.DEVNULL, env=environment()
        )
        while process.poll() is None and epochs_done(folder) < wanted:
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills, "the run ended before it could be killed"
    _, weights = train(folder, "table_wise", epochs=epochs)
    for name, tensor in expected.items():
        assert torch.equal(tensor, weights[name]), name


def epochs_done(folder: Path) -> int:
    try:
        done: int = json.loads((folder / "checkpoints" / "last" / "state.json").read_text())["progress"]["epoch"]
    except (OSError, json.JSONDecodeError):
        return 0
    return done
