"""Retrieval on two ranks, each with half the columns, and after `kill -9`: the same weights as without."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from pipelines.model import CHECKPOINTS
from recsys.core.errors import ConfigError
from recsys.retrieval import dimension_shards
from recsys.train import checkpoint
from tests.pipelines.test_retrieval import ENCODER, SMALL, files
from tests.pipelines.world import call, command, do, environment

GIVEN = (*SMALL, *ENCODER, "train.epochs=2", "retrieval.similarity=cosine", "retrieval.model.layer_weights=learned")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """Results of one rank, never interrupted, and the overrides."""
    folder = tmp_path_factory.mktemp("ranks")
    given = (*GIVEN, *files(folder))
    for stage in ("ingest", "train"):
        do(stage, folder / "runs", *given, "name=one")
    return folder / "runs", given


def weights(runs: Path, name: str) -> dict[str, torch.Tensor]:
    return checkpoint.read_tensors(runs / name / "train" / CHECKPOINTS / "best", "model.")


def test_two_ranks_equal_one(one: tuple[Path, tuple[str, ...]]) -> None:
    check_two_ranks("one", *one)


def test_two_ranks_that_sample_equal_one(one: tuple[Path, tuple[str, ...]]) -> None:
    runs, given = one
    given = (*given, "retrieval/model=lightgcn_sampled", "retrieval.model.fan_out=2")
    do("train", runs, *given, "name=sampled")
    check_two_ranks("sampled", runs, given)


def check_two_ranks(name: str, runs: Path, given: tuple[str, ...]) -> None:
    finished = call("train", runs, *given, f"name={name}_two", "train.run_on.num_processes=2")
    assert finished.returncode == 0, finished.stderr
    expected, found = weights(runs, name), weights(runs, f"{name}_two")
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-4)


def test_a_width_that_ranks_cannot_share_is_refused(one: tuple[Path, tuple[str, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dimension_shards, "num_ranks", lambda: 3)
        with pytest.raises(ConfigError, match="embedding_dim=8 on 3 ranks"):
            dimension_shards.check_width(8)


def test_a_killed_run_ends_with_the_same_bits(one: tuple[Path, tuple[str, ...]]) -> None:
    runs, given = one
    given = (*given, "name=killed", "train.checkpoint_every=2")
    whole = runs / "killed" / "train.partial" / CHECKPOINTS / "last" / checkpoint.STATE_NAME
    with subprocess.Popen(command("train", runs, *given), env=environment(), stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not whole.is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert whole.is_file(), "it was killed in the middle of training"
    do("train", runs, *given)
    expected, found = weights(runs, "one"), weights(runs, "killed")
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name
