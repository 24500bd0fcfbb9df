"""Metrics of lists: golden rows worked out by hand, and plain loops on many."""

import math

import torch

from recsys.metrics import (
    average_precision_at_k,
    coverage_at_k,
    hit_at_k,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
)

HITS = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
RELEVANT = torch.tensor([2, 1, 5])


def test_golden_rows() -> None:
    two = 1 / math.log2(3)
    assert recall_at_k(HITS, RELEVANT).tolist() == [1, 0, 0.2]
    assert precision_at_k(HITS).tolist() == [2 / 3, 0, 1 / 3]
    assert hit_at_k(HITS).tolist() == [1, 0, 1]
    expected = [(1 + 0.5) / (1 + two), 0, two / (1 + two + 0.5)]
    torch.testing.assert_close(ndcg_at_k(HITS, RELEVANT), torch.tensor(expected, dtype=torch.float64))
    expected = [(1 + 2 / 3) / 2, 0, (1 / 2) / 3]
    torch.testing.assert_close(average_precision_at_k(HITS, RELEVANT), torch.tensor(expected, dtype=torch.float64))


def test_a_perfect_list_has_the_best_value_of_all() -> None:
    perfect = torch.tensor([[True, True, False, False], [True, True, True, True]])
    relevant = torch.tensor([2, 9])
    assert ndcg_at_k(perfect, relevant).tolist() == [1, 1]
    assert average_precision_at_k(perfect, relevant).tolist() == [1, 1]
    assert recall_at_k(perfect, relevant).tolist() == [1, 4 / 9]


def test_coverage_counts_items_and_no_empty_places() -> None:
    assert coverage_at_k(torch.tensor([[1, 2], [2, 0]]), num_items=8).value == 0.25
    assert coverage_at_k(torch.zeros(0, 2, dtype=torch.int64), num_items=8).value == 0
    assert not coverage_at_k(torch.zeros(0, 2, dtype=torch.int64), num_items=0).defined
