"""Lists of the best against sorting: ties, empty places, short rows, scripted."""

import pytest
import torch
from torch import Tensor

from recsys.ops.top_k import hide, top_k

NEVER = float("-inf")


def sorted_rows(scores: Tensor, k: int) -> tuple[list[list[int]], list[list[float]]]:
    items, values = [], []
    for row in scores.tolist():
        order = sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]
        items.append([i if row[i] != NEVER else 0 for i in order])
        values.append([row[i] for i in order])
    return items, values


@pytest.mark.parametrize("k", [1, 3, 11, 12, 20])
@pytest.mark.parametrize("distinct", [2, 4, 1000])
def test_order_is_by_score_then_by_column(k: int, distinct: int) -> None:
    generator = torch.Generator().manual_seed(k * distinct)
    scores = torch.randint(distinct, (50, 12), generator=generator).float()
    scores[torch.rand(50, 12, generator=generator) < 0.3] = NEVER
    scores[3] = NEVER
    scores[:, 0] = NEVER
    items, values = top_k(scores, k)
    assert (items.tolist(), values.tolist()) == sorted_rows(scores, min(k, 12))
    scripted = torch.jit.script(top_k)(scores, k)
    assert torch.equal(scripted[0], items)


def test_hiding_reaches_the_named_places_and_the_unknown_item() -> None:
    scores = hide(torch.zeros(3, 4), torch.tensor([2, 1, 3]), torch.tensor([0, 1, 1, 3]))
    assert scores.tolist() == [[NEVER, 0, NEVER, 0], [NEVER, 0, 0, 0], [NEVER, NEVER, 0, NEVER]]
