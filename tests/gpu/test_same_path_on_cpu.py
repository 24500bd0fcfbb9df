"""What the GPU tests run, run on the CPU: their own code works before a GPU sees it. Plus the refusals."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.train import checkpoint
from recsys.train.config import DeviceConfig, OptimizerConfig, TableMemory, TableOptimizer
from recsys.train.session import process_group
from recsys.train.tables import initialize_tables
from tests.embeddings import dense_reference as reference
from tests.gpu import world
from tests.gpu.conftest import reason_to_skip

CPU = torch.device("cpu")


@pytest.fixture
def one_rank() -> Iterator[None]:
    with process_group(DeviceConfig()):
        yield


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("width", [8, 10])
@pytest.mark.parametrize("method", world.ALL_METHODS)
def test_sharded_is_unsharded(method: str, width: int) -> None:
    session, plan = world.embeddings_session(method, TableOptimizer.SGD, CPU, width)
    torch.manual_seed(3)
    plain = PlannedEmbeddingBagCollection(plan, CPU)
    initialize_tables(plain.state_dict(), plan, seed=5)
    optimizer = torch.optim.SGD(tables := list(reference.table_parameters(plain).values()), lr=0.05)
    known = {id(table) for table in tables}
    owned = [parameter for parameter in plain.parameters() if id(parameter) not in known]
    of_combiners = torch.optim.Adam(owned, lr=OptimizerConfig().dense_learning_rate) if owned else None
    for number in range(2):
        got = world.step(session, number)
        plain.zero_grad()
        output = plain(world.batch(number).sparse).values()
        output.backward(torch.randn(output.shape, generator=torch.Generator().manual_seed(100 + number)))
        optimizer.step()
        if of_combiners is not None:
            of_combiners.step()
        torch.testing.assert_close(got, output.detach(), rtol=1e-5, atol=1e-5)
    world.assert_same_weights(world.weights(session), dict(plain.state_dict()), tolerance=1e-5)


@pytest.mark.filterwarnings("ignore:Please use DTensor:FutureWarning")  # TorchRec's own tensors, when a run is resumed
@pytest.mark.usefixtures("one_rank")
def test_restarted_run_ends_where_a_whole_one_does(tmp_path: Path) -> None:
    table = TableOptimizer.ROWWISE_ADAGRAD
    whole, expected = world.train(tmp_path / "whole", DeviceConfig(), CPU, table=table)
    world.train(tmp_path / "parts", DeviceConfig(), CPU, table=table, epochs=1)
    parts, history = world.train(tmp_path / "parts", DeviceConfig(), CPU, table=table)
    assert [r["train_loss"] for r in history] == [r["train_loss"] for r in expected]
    world.assert_same_weights(world.weights(parts), world.weights(whole), tolerance=0)
    best = checkpoint.read_tensors(tmp_path / "parts" / "best", "model.")
    world.assert_same_weights({n.replace("module.", ""): t for n, t in best.items()}, world.weights(parts), tolerance=0)


def test_two_ranks_train_as_one(tmp_path: Path) -> None:
    """The script of the two-GPU test, over gloo."""
    weights = []
    for ranks in (1, 2):
        output = tmp_path / f"{ranks}.pt"
        launcher = ["-W", "ignore", "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        worker = [str(Path(__file__).with_name("two_gpus.py")), str(tmp_path / f"run{ranks}"), "row_wise"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        command = [sys.executable, *launcher, *worker, str(output), "cpu"]
        result = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stderr[-3000:]
        weights.append(torch.load(output, weights_only=True))
    world.assert_same_weights(weights[1], weights[0], tolerance=1e-3)


@pytest.mark.usefixtures("one_rank")
def test_cached_tables_without_a_gpu_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"uvm_caching.*Set run_on\.table_memory=device"):
        world.model_session(DeviceConfig(table_memory=TableMemory.UVM_CACHING), CPU, TableOptimizer.SGD)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused_and_its_tests_say_why_they_skip() -> None:
    with pytest.raises(ConfigError, match=r"torch sees no GPU"), process_group(DeviceConfig(device="cuda")):
        pass
    assert "sees no CUDA device" in (reason_to_skip() or "")
