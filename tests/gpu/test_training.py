"""Training on a GPU: sharded = unsharded = cached tables = CPU; checkpoints cross over; bfloat16 learns."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.train import checkpoint
from recsys.train.config import DeviceConfig, Precision, Sharding, TableMemory, TableOptimizer
from recsys.train.tables import initialize_tables
from tests.gpu import world

pytestmark = pytest.mark.gpu

ON_GPU = DeviceConfig(device="cuda")
CACHED = DeviceConfig(device="cuda", table_memory=TableMemory.UVM_CACHING, cache_load_factor=0.1)
FUSED = [TableOptimizer.ROWWISE_ADAGRAD, TableOptimizer.ADAGRAD, TableOptimizer.SGD, TableOptimizer.ADAM]
TOLERANCE = 1e-4
"""After some thirty steps: each differs by float32 rounding, and optimizers with roots amplify that."""


@pytest.mark.parametrize("method", world.METHODS)
def test_sharded_is_unsharded(cuda: torch.device, method: str) -> None:
    """Fused SGD of the sharded collection against gradients of an ordinary module and torch's SGD."""
    session, plan = world.embeddings_session(method, TableOptimizer.SGD, cuda)
    plain = PlannedEmbeddingBagCollection(plan, cuda)
    initialize_tables(plain.state_dict(), plan, seed=5)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05)
    for number in range(3):
        got = world.step(session, number)
        optimizer.zero_grad()
        output = plain(world.batch(number).sparse.to(cuda)).values()
        upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(100 + number))
        output.backward(upstream.to(cuda))
        optimizer.step()
        torch.testing.assert_close(got, output.detach().cpu(), rtol=1e-5, atol=1e-5)
    want = {name: tensor.detach().cpu() for name, tensor in plain.state_dict().items()}
    world.assert_same_weights(world.weights(session), want, tolerance=1e-5)


@pytest.mark.parametrize("sharding", [Sharding.TABLE_WISE, Sharding.ROW_WISE, Sharding.COLUMN_WISE, Sharding.AUTO])
def test_every_sharding_trains_as_the_cpu_does(cuda: torch.device, sharding: Sharding, tmp_path: Path) -> None:
    table = TableOptimizer.ROWWISE_ADAGRAD
    run_on = DeviceConfig(device="cuda", sharding=sharding)
    on_gpu, history = world.train(tmp_path / "gpu", run_on, cuda, table=table)
    on_cpu, expected = world.train(tmp_path / "cpu", DeviceConfig(), torch.device("cpu"), table=table)
    for got, want in zip(history, expected, strict=True):
        assert got["train_loss"] == pytest.approx(want["train_loss"], abs=TOLERANCE)
        assert got["validation_log_loss"] == pytest.approx(want["validation_log_loss"], abs=TOLERANCE)
    if sharding is not Sharding.COLUMN_WISE:  # row-wise Adagrad of half a row is another optimizer, if it was cut
        world.assert_same_weights(world.weights(on_gpu), world.weights(on_cpu), tolerance=10 * TOLERANCE)


@pytest.mark.parametrize("table", FUSED)
def test_cached_tables_are_device_tables(cuda: torch.device, table: TableOptimizer, tmp_path: Path) -> None:
    cached, history = world.train(tmp_path / "cached", CACHED, cuda, table=table)
    plain, expected = world.train(tmp_path / "plain", ON_GPU, cuda, table=table)
    assert [r["train_loss"] for r in history] == pytest.approx([r["train_loss"] for r in expected], abs=TOLERANCE)
    world.assert_same_weights(world.weights(cached), world.weights(plain), tolerance=10 * TOLERANCE)


def test_loaded_weights_replace_cached_rows(cuda: torch.device) -> None:
    """A write through `state_dict()` reaches host memory; the rows that the cache holds must not outlive it."""
    session, plan = world.model_session(CACHED, cuda, TableOptimizer.SGD)
    fresh, _ = world.model_session(ON_GPU, cuda, TableOptimizer.SGD)
    batch = world.batch(0).to(cuda)
    with torch.no_grad():
        before = session.model(batch.dense, batch.sparse)
        for each in (session, fresh):
            initialize_tables(each.model.state_dict(), plan, seed=6)
            each.weights_loaded()
        after, want = session.model(batch.dense, batch.sparse), fresh.model(batch.dense, batch.sparse)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("run_on", [ON_GPU, CACHED], ids=["device", "cached"])
@pytest.mark.parametrize("table", FUSED)
def test_restarted_run_ends_where_a_whole_one_does(
    cuda: torch.device, table: TableOptimizer, run_on: DeviceConfig, tmp_path: Path
) -> None:
    whole, expected = world.train(tmp_path / "whole", run_on, cuda, table=table)
    world.train(tmp_path / "parts", run_on, cuda, table=table, epochs=1)
    parts, history = world.train(tmp_path / "parts", run_on, cuda, table=table)
    assert [r["train_loss"] for r in history] == pytest.approx([r["train_loss"] for r in expected], abs=TOLERANCE)
    world.assert_same_weights(world.weights(parts), world.weights(whole), tolerance=10 * TOLERANCE)


@pytest.mark.parametrize("run_on", [ON_GPU, CACHED], ids=["device", "cached"])
def test_checkpoint_of_the_gpu_loads_on_the_cpu(cuda: torch.device, run_on: DeviceConfig, tmp_path: Path) -> None:
    table = TableOptimizer.ROWWISE_ADAGRAD
    on_gpu, history = world.train(tmp_path, run_on, cuda, table=table)
    whole = checkpoint.read_tensors(tmp_path / "best", "model.")
    assert all(tensor.device.type == "cpu" for tensor in whole.values())
    world.assert_same_weights(
        {n.replace("module.", ""): t for n, t in whole.items()}, world.weights(on_gpu), tolerance=0
    )
    on_cpu, continued = world.train(tmp_path, DeviceConfig(), torch.device("cpu"), table=table, epochs=3)
    assert continued[:2] == history and len(continued) == 3
    again, _ = world.train(tmp_path, run_on, cuda, table=table, epochs=3)  # and the reverse
    world.assert_same_weights(world.weights(again), world.weights(on_cpu), tolerance=0)


@pytest.mark.parametrize("run_on", [ON_GPU, CACHED], ids=["device", "cached"])
def test_bfloat16_learns_like_float32(cuda: torch.device, run_on: DeviceConfig, tmp_path: Path) -> None:
    if not torch.cuda.is_bf16_supported():
        pytest.skip(f"{torch.cuda.get_device_name(cuda)} has no bfloat16 arithmetic")
    half = DeviceConfig(
        device="cuda", precision=Precision.BFLOAT16, table_memory=run_on.table_memory, cache_load_factor=0.1
    )
    session, history = world.train(tmp_path / "half", half, cuda, epochs=4, table=TableOptimizer.ROWWISE_ADAGRAD)
    _, expected = world.train(tmp_path / "full", run_on, cuda, epochs=4, table=TableOptimizer.ROWWISE_ADAGRAD)
    assert all(tensor.dtype != torch.bfloat16 for tensor in world.weights(session).values())
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert history[-1]["train_loss"] == pytest.approx(expected[-1]["train_loss"], abs=0.02)  # 8 bits of mantissa


@pytest.mark.parametrize("sharding", ["table_wise", "row_wise"])
def test_two_gpus_train_as_one(sharding: str, tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip(f"{torch.cuda.device_count()} GPU here, two ranks over nccl need two")
    weights = []
    for ranks in (1, 2):
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        worker = Path(__file__).with_name("two_gpus.py")
        output = tmp_path / f"{ranks}.pt"
        command = [sys.executable, *launcher, str(worker), str(tmp_path / f"run{ranks}"), sharding, str(output)]
        root = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
        result = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stderr[-3000:]
        weights.append(torch.load(output, weights_only=True))
    world.assert_same_weights(weights[1], weights[0], tolerance=10 * TOLERANCE)
