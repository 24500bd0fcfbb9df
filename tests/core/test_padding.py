"""Sequences side by side, against loops, and scripted."""

import pytest
import torch

from recsys.core.padding import padded


@pytest.mark.parametrize("lengths", [[2, 0, 3], [0, 0], [1], [], [4, 4]])
def test_each_row_holds_its_values_then_zeros(lengths: list[int]) -> None:
    values = torch.randn(sum(lengths), 3)
    longest = max([1, *lengths])
    expected = torch.zeros(len(lengths), longest, 3)
    rows = iter(values)
    for b, length in enumerate(lengths):
        for place in range(length):
            expected[b, place] = next(rows)
    counts = torch.tensor(lengths, dtype=torch.int64)
    assert torch.equal(padded(values, counts), expected)
    assert torch.equal(torch.jit.script(padded)(values, counts), expected)


def test_gradients_come_back_to_the_values_alone() -> None:
    values = torch.ones(3, 2, requires_grad=True)
    (padded(values, torch.tensor([1, 2])) * torch.arange(8.0).view(2, 2, 2)).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [[0, 1], [4, 5], [6, 7]]
