"""Rank correlation by hand, and what a row of the table is made of."""

import pytest

from recsys.evaluate.pareto import SearchedFeature, SearchedPlan
from tools.bench_search import found_widths, rank_correlation, ranks


def test_equal_values_share_their_rank() -> None:
    assert ranks([4.0, 1.0, 1.0, 2.0]) == [4.0, 1.5, 1.5, 3.0]


def test_rank_correlation() -> None:
    planted = [1, 1, 2, 2, 4, 8]
    assert rank_correlation([1.0, 1.0, 2.0, 2.0, 4.0, 16.0], planted) == pytest.approx(1.0)
    assert rank_correlation([8.0, 8.0, 4.0, 4.0, 2.0, 1.0], planted) == pytest.approx(-1.0)
    assert rank_correlation([3.0] * 6, planted) == 0.0


def test_widths_are_means_over_ids() -> None:
    plan = SearchedPlan(ratio=4, features=(SearchedFeature(feature="F1", pieces=((1, 4.0), (3, 0.0))),))
    assert found_widths(plan) == {"F1": 1.0}
