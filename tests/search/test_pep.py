"""Soft thresholds against derivations of their own: shrinking, gradients, what decay alone does, what is kept."""

import math

import pytest
import torch

from recsys.search.pep import PepConfig, SoftThreshold, StrengthLearning
from tests.search.world import SPACE


def test_weights_shrink_by_the_sigmoid_and_vanish_below_it() -> None:
    mask = SoftThreshold(sizes=[1, 1], embedding_dim=2, initial=-15.0)
    mask.strength.copy_(torch.tensor([[0.0, -2.0], [-15.0, 2.0]]))
    shown = mask(torch.tensor([0, 1]), [torch.tensor([[0.7, -0.2], [0.3, 0.5]])])
    low = 1 / (1 + math.exp(2))
    assert shown.flatten().tolist() == pytest.approx([0.2, -(0.2 - low), 0.3, 0.0], abs=1e-6)


def test_gradients_are_those_of_the_formula() -> None:
    """dv'/dv is 1 above the threshold and 0 below; dv'/ds is -sign(v) g(s) (1 - g(s)) above, summed over rows."""
    mask = SoftThreshold(sizes=[3], embedding_dim=2, initial=-1.0)
    threshold = 1 / (1 + math.e)
    row = torch.tensor([[0.5, -0.6], [0.1, 0.9], [-0.4, -0.2]], requires_grad=True)
    weights = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]])
    mask.strength.requires_grad_()
    (mask(torch.arange(3), [row]) * weights).sum().backward()
    assert row.grad is not None and mask.strength.grad is not None
    above = row.detach().abs() > threshold
    torch.testing.assert_close(row.grad, weights * above)
    slope = threshold * (1 - threshold)
    expected = [-slope * (1.0 * 1 + 0.5 * -1), -slope * (2.0 * -1 + -1.0 * 1)]
    assert mask.strength.grad[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    mask = SoftThreshold(sizes=[2, 2], embedding_dim=3, initial=-1.5).double()
    row, ids = torch.randn(4, 3, dtype=torch.float64), torch.arange(4)

    def shown(strength: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        mask.strength = strength
        return mask.masked(ids, rows)

    start = torch.full((2, 3), -1.5, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(shown, (start, row.requires_grad_()))


def test_the_penalty_is_coupled_decay() -> None:
    learning = StrengthLearning(SPACE, PepConfig(budget_mib=1.0, weight_decay=0.5))
    strength = torch.tensor([[-3.0, 2.0]], requires_grad=True)
    learning._buffers = [strength]

    class Ranks:
        world_size = 1

    penalty = learning.penalty(Ranks(), rows=1)  # type: ignore[arg-type]
    assert penalty is not None
    penalty.backward()
    assert strength.grad is not None
    assert strength.grad.tolist() == [[-1.5, 1.0]]


def test_without_decay_nothing_is_pruned_and_that_is_refused() -> None:
    with pytest.raises(ValueError, match="Without decay nothing is pruned"):
        PepConfig(budget_mib=1.0, weight_decay=0.0)
