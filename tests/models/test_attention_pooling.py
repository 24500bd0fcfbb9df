"""Blocks of sequence heads: activations, scores and sums by hand; what is not there weighs nothing."""

import math

import pytest
import torch
from torch import Tensor

from recsys.models.activations import Activation, Dice
from recsys.models.attention_pooling import (
    ActivationUnit,
    TargetAttention,
    best_events,
    rows_at,
    softmax_over,
    unpadded,
    weighted_sum,
)

STEPS = torch.tensor([[[1.0], [3.0], [0.0]], [[0.0], [0.0], [0.0]]])  # two events of width 1, none
THERE = torch.tensor([[True, True, False], [False, False, False]])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_dice_by_hand() -> None:
    dice = Dice(1)
    with torch.no_grad():
        dice.alpha.fill_(0.5)
    inputs = torch.tensor([[1.0], [3.0]])  # mean 2, variance 1, so that p is sigmoid of -1 and of 1
    expected = [x * (p + 0.5 * (1 - p)) for x, p in ((1.0, sigmoid(-1)), (3.0, sigmoid(1)))]
    assert dice(inputs).flatten().tolist() == pytest.approx(expected)
    assert dice.running_mean.item() == pytest.approx(0.02) and dice.running_var.item() == pytest.approx(1.01)
    expected = [x * (p + 0.5 * (1 - p)) for x, p in ((x, sigmoid((x - 0.02) / 1.01**0.5)) for x in (1.0, 3.0))]
    assert dice.eval()(inputs).flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("num_rows", [0, 1])
def test_dice_of_too_few_rows_keeps_its_moments(num_rows: int) -> None:
    dice = Dice(3)
    outputs = dice(torch.ones(num_rows, 3))
    assert outputs.shape == (num_rows, 3) and torch.isfinite(outputs).all()
    assert not dice.running_mean.any() and torch.equal(dice.running_var, torch.ones(3))


def test_prelu_has_a_slope_for_each_unit() -> None:
    slopes = Activation.PRELU.of_width(3).get_parameter("weight")
    torch.testing.assert_close(slopes, torch.full((3,), 0.1))


def test_steps_beyond_the_length_are_padding() -> None:
    assert torch.equal(unpadded(STEPS, torch.tensor([2, 0])), THERE)


def test_softmax_by_hand() -> None:
    scores = torch.tensor([[math.log(3), 0.0, 9.0], [1.0, 2.0, 3.0]])
    torch.testing.assert_close(softmax_over(scores, THERE), torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("top_k", [1, 2, 3, 7])
def test_best_events_by_hand(top_k: int) -> None:
    scores = torch.tensor([[0.0, math.log(3), 50.0], [1.0, 2.0, 3.0]])  # 50 is the score of padding
    weights, places = best_events(scores, THERE, top_k=top_k)
    assert weights.shape == (2, top_k) and int(places.min()) >= 0 and int(places.max()) < 6
    (found,) = rows_at(places, [STEPS], top_k)
    assert found.shape == (2, top_k, 1)
    expected = [3.0] if top_k == 1 else [0.75 * 3 + 0.25 * 1]
    torch.testing.assert_close(weighted_sum(weights, [found]), torch.tensor([expected, [0.0]]))


def test_only_the_best_get_gradients() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0, 0.0]], requires_grad=True)
    weights, places = best_events(scores, torch.ones(1, 4, dtype=torch.bool), top_k=2)
    steps = torch.randn(1, 4, 2, requires_grad=True)
    weighted_sum(weights, rows_at(places, [steps], 2)).square().sum().backward()
    assert scores.grad is not None and steps.grad is not None
    assert (scores.grad != 0).tolist() == [[True, False, True, False]]
    assert steps.grad.any(2).tolist() == [[True, False, True, False]]


def test_activation_unit_by_hand() -> None:
    unit = ActivationUnit(1, 1, units=[2], activation=Activation.RELU, dropout=0.0)
    with torch.no_grad():  # of [q, q - k, q * k, k, gap]
        weights = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0], [1.0, -2.0, 0.0, 0.0, 10.0]])
        unit.get_parameter("mlp.layers.0.weight").copy_(weights)
        unit.get_parameter("output.weight").copy_(torch.tensor([[1.0, 2.0]]))
    gaps = torch.tensor([[[0.5], [0.25], [99.0]], [[99.0], [99.0], [99.0]]])
    scores = unit([torch.tensor([[2.0], [7.0]])], [STEPS], [gaps], THERE)
    # k = 1: 2 and 2 - 2 + 5, 2 + 2 * 5; k = 3: 6 and 2 + 2 + 2.5, 6 + 2 * 6.5
    assert scores.tolist() == [[12.0, 19.0, 0.0], [0.0, 0.0, 0.0]]


def test_target_attention_by_hand() -> None:
    attention = TargetAttention(4, 4)
    with torch.no_grad():
        attention.get_parameter("now.weight").copy_(torch.tensor([[1.0, 0.0, -1.0, 0.0]]))
    targets = [torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[5.0]])]
    steps = [torch.tensor([[[1.0, 1.0, 1.0], [0.0, 0.0, 2.0]]]), torch.tensor([[[2.0], [-1.0]]])]
    gaps = torch.tensor([[[4.0, 9.0, 0.0, 9.0], [0.0, 9.0, 6.0, 9.0]]])
    # event 0: half of 6 + 10 + 4; event 1: half of 6 - 5 - 6
    assert attention(targets, steps, [gaps]).tolist() == [[10.0, -2.5]]


def test_sums_of_several_columns_lie_side_by_side() -> None:
    weights = torch.tensor([[0.5, 2.0]])
    steps: list[Tensor] = [torch.tensor([[[2.0], [1.0]]]), torch.tensor([[[0.0, 4.0], [1.0, 0.0]]])]
    assert weighted_sum(weights, steps).tolist() == [[3.0, 2.0, 2.0]]
