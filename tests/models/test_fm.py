"""`fm`: a row by hand, counts of BARS, a numeric column as one more field."""

import pytest
import torch

from recsys.models.fm import FMConfig
from tests.models.world import build, columns, num_on_frappe, num_on_movielens

TWO = FMConfig(embedding_dim=2)


def test_parameter_counts_are_those_of_bars() -> None:
    # frappe_x1: 5,389 rows of 10 numbers and as many weights, one bias; movielenslatest_x1: 90,239 rows
    assert num_on_frappe(FMConfig(embedding_dim=10)) == 59_280
    assert num_on_movielens(FMConfig(embedding_dim=10)) == 992_630


def test_a_row_by_hand() -> None:
    head = build(TWO, 0)
    with torch.no_grad():
        head.get_parameter("linear.bias").fill_(0.5)
    vectors, weights = [1.0, 2.0, 3.0, -1.0, 0.0, 4.0], [10.0, 20.0, 30.0]
    # <v0, v1> = 3 - 2, <v0, v2> = 8, <v1, v2> = -4
    assert head(torch.empty(1, 0), torch.tensor([vectors + weights])).tolist() == [0.5 + 60.0 + 5.0]


def test_a_numeric_column_is_a_field_whose_vector_is_scaled() -> None:
    head = build(TWO, 1, columns((5,)))
    with torch.no_grad():
        head.get_parameter("numeric.vectors").copy_(torch.tensor([[4.0, 1.0]]))
        head.get_parameter("linear.dense_weights.weight").fill_(7.0)
    # v0 = [1, 2], its weight 10; x = 3, so the pair is 3 * <[1, 2], [4, 1]> = 18, and the linear part 7 * 3
    logits = head(torch.tensor([[3.0]]), torch.tensor([[1.0, 2.0, 10.0]]))
    assert logits.item() == pytest.approx(10.0 + 21.0 + 18.0, abs=1e-5)


def test_vectors_of_numeric_columns_start_as_small_as_rows_of_tables() -> None:
    vectors = build(FMConfig(embedding_dim=100), 100).get_parameter("numeric.vectors")
    assert vectors.std().item() == pytest.approx(1e-4, rel=0.05)
