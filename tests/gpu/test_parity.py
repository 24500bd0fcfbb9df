"""The same numbers on the GPU as on the CPU: rows exactly, embeddings and fused steps to float32 rounding."""

import pytest
import torch

from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.ops.hashing import hash_rows, mix64
from recsys.train.config import TableOptimizer
from recsys.train.tables import initialize_tables
from tests.gpu import world

pytestmark = pytest.mark.gpu

TOLERANCE = 1e-5
"""Sums of a few float32 products, in another order on the GPU; weights are below 1."""

FUSED_ON_CPU = [TableOptimizer.ROWWISE_ADAGRAD, TableOptimizer.ADAGRAD, TableOptimizer.SGD]
ANY_KEYS = torch.cat(
    [torch.arange(-5, 2000), torch.tensor([2**63 - 1, -(2**63), 2**53 + 1, -(2**33)]), torch.arange(10) * 2**58]
)


def test_mixed_bits_and_hashed_rows_are_exact(cuda: torch.device) -> None:
    keys = ANY_KEYS.to(cuda)
    assert torch.equal(mix64(keys).cpu(), mix64(ANY_KEYS))
    salts = torch.tensor([1, -7, 2**62 + 3])
    for num_rows in (1, 7, 2**20, 2**40 + 9):
        assert torch.equal(hash_rows(keys, salts.to(cuda), num_rows).cpu(), hash_rows(ANY_KEYS, salts, num_rows))


@pytest.mark.parametrize("method", world.ALL_METHODS)
def test_rows_of_every_remap_are_exact(cuda: torch.device, method: str) -> None:
    for entry in world.plan_of(method).features:
        ids = torch.arange(world.SIZES[entry.feature.source])
        on_cpu, on_gpu = entry.remap.build()(ids), entry.remap.build().to(cuda)(ids.to(cuda))
        assert on_gpu.device.type == "cuda"
        assert torch.equal(on_gpu.cpu(), on_cpu), entry.feature.name


@pytest.mark.parametrize("width", [8, 10])
@pytest.mark.parametrize("table", FUSED_ON_CPU)
@pytest.mark.parametrize("method", world.ALL_METHODS)
def test_forward_and_fused_steps(cuda: torch.device, method: str, table: TableOptimizer, width: int) -> None:
    on_cpu, _ = world.embeddings_session(method, table, torch.device("cpu"), width)
    on_gpu, _ = world.embeddings_session(method, table, cuda, width)
    for number in range(3):
        want = world.step(on_cpu, number)
        torch.testing.assert_close(world.step(on_gpu, number), want, rtol=TOLERANCE, atol=TOLERANCE)
    world.assert_same_weights(world.weights(on_gpu), world.weights(on_cpu), tolerance=TOLERANCE)


@pytest.mark.parametrize("method", world.METHODS)
def test_fused_adam_is_the_formula(cuda: torch.device, method: str) -> None:
    """FBGEMM has no Adam on a CPU. Its Adam moves the rows of a batch only."""
    session, _ = world.embeddings_session(method, TableOptimizer.ADAM, cuda)
    reference, _ = world.embeddings_session(method, TableOptimizer.SGD, torch.device("cpu"))
    before = world.weights(reference)
    world.step(reference, 0)
    after = world.weights(reference)
    gradients = {name: (before[name] - after[name]) / 0.05 for name in before}
    world.step(session, 0)
    # The first step of Adam with its bias corrected: lr * g / (|g| + eps); a row outside the batch has g = 0.
    want = {name: before[name] - 0.05 * g / (g.abs() + 1e-8) for name, g in gradients.items()}
    got = world.weights(session)
    for name, gradient in gradients.items():
        clear = (gradient.abs() > 1e-4) | (gradient == 0)  # where rounding cannot turn the sign
        torch.testing.assert_close(got[name][clear], want[name][clear], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", world.METHODS)
def test_collection_without_model_parallelism(cuda: torch.device, method: str) -> None:
    """Sharded by TorchRec, or placed on the GPU as an ordinary module: the same embeddings."""
    plan = world.plan_of(method)
    collection = PlannedEmbeddingBagCollection(plan, cuda)
    initialize_tables(collection.state_dict(), plan, seed=5)
    sharded, _ = world.embeddings_session(method, TableOptimizer.SGD, cuda)
    with torch.no_grad():
        sparse = world.batch(0).sparse.to(cuda)
        torch.testing.assert_close(
            sharded.model(sparse).values(), collection(sparse).values(), rtol=TOLERANCE, atol=TOLERANCE
        )
