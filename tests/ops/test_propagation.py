"""Propagation against dense matrix products: values, gradients, isolated nodes, types."""

import pytest
import torch
from torch import Tensor

from recsys.ops.propagation import SparseRows, bipartite_adjacency, propagate

NUM_USERS, NUM_ITEMS = 9, 7
NUM_NODES = NUM_USERS + NUM_ITEMS


def graph() -> tuple[Tensor, Tensor]:
    """Pairs; user 0, user 8 and item 6 have none."""
    chosen = torch.rand(NUM_USERS, NUM_ITEMS, generator=torch.Generator().manual_seed(3)) < 0.4
    chosen[[0, 8]] = False
    chosen[:, 6] = False
    users, items = chosen.nonzero().t()
    return users, items


def dense(users: Tensor, items: Tensor) -> Tensor:
    """D^-1/2 A D^-1/2 as its definition says, 1 / sqrt(0) being 0."""
    matrix = torch.zeros(NUM_NODES, NUM_NODES, dtype=torch.float64)
    matrix[users, items + NUM_USERS] = 1
    matrix += matrix.t().clone()
    degrees = matrix.sum(1)
    scale = torch.where(degrees > 0, degrees.rsqrt(), torch.zeros(()).double())
    return scale.unsqueeze(1) * matrix * scale


def adjacency() -> SparseRows:
    return bipartite_adjacency(*graph(), num_users=NUM_USERS, num_items=NUM_ITEMS)


def polynomial(matrix: Tensor, x: Tensor, weights: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for power, weight in enumerate(weights):
        total = total + weight * (torch.linalg.matrix_power(matrix, power) @ x)
    return total


def test_the_product_is_the_dense_one_and_nodes_without_edges_get_zeros() -> None:
    x = torch.randn(NUM_NODES, 5)
    found = adjacency().product(x)
    torch.testing.assert_close(found, (dense(*graph()) @ x.double()).float(), rtol=1e-6, atol=1e-6)
    assert (found[[0, 8, NUM_NODES - 1]] == 0).all()


@pytest.mark.parametrize("weights", [[1.0], [0.25] * 4, [0.0, 0.5, 0.5], [0.1, 0.0, 0.9]])
@pytest.mark.parametrize("learned", [False, True])
def test_values_and_gradients_are_those_of_the_dense_polynomial(weights: list[float], learned: bool) -> None:
    x = torch.randn(NUM_NODES, 5, requires_grad=True)
    factors = torch.tensor(weights, requires_grad=learned)
    outer = torch.randn(NUM_NODES, 5)
    found = propagate(x, factors, adjacency())
    (found * outer).sum().backward()

    exact, wanted = x.detach().double().requires_grad_(), factors.detach().double().requires_grad_()
    expected = polynomial(dense(*graph()), exact, wanted)
    (expected * outer.double()).sum().backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert x.grad is not None and exact.grad is not None and wanted.grad is not None
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)
    if learned:
        assert factors.grad is not None
        torch.testing.assert_close(factors.grad.double(), wanted.grad, rtol=1e-5, atol=1e-5)
    else:
        assert factors.grad is None


def test_nothing_of_the_layers_is_kept_for_the_backward_pass() -> None:
    kept: list[int] = []
    x = torch.randn(NUM_NODES, 5, requires_grad=True)

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        propagate(x, torch.full((4,), 0.25), adjacency())
    assert sum(kept) <= 4, "only the weights are saved"


def test_bfloat16_layers_lose_no_more_than_their_type() -> None:
    x = torch.randn(NUM_NODES, 8)
    weights = torch.full((4,), 0.25)
    exact = propagate(x, weights, adjacency())
    rounded = propagate(x.bfloat16(), weights, adjacency())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.03, atol=0.03)


def test_columns_do_not_mix() -> None:
    x, weights = torch.randn(NUM_NODES, 6), torch.tensor([0.2, 0.3, 0.5])
    halves = [propagate(part.contiguous(), weights, adjacency()) for part in x.chunk(2, dim=1)]
    assert torch.equal(torch.cat(halves, dim=1), propagate(x, weights, adjacency()))


@pytest.mark.gpu
def test_a_gpu_agrees_with_a_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    x, weights = torch.randn(NUM_NODES, 8), torch.full((4,), 0.25)
    there = torch.device("cuda")
    found = propagate(x.to(there), weights.to(there), adjacency().to(there))
    torch.testing.assert_close(found.cpu(), propagate(x, weights, adjacency()), rtol=1e-5, atol=1e-5)
