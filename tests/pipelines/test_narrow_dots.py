"""`NarrowDots`: scores of rows rounded by their definition, in Python, as a scripted file computes them."""

import pytest
import torch
from torch import Tensor

from pipelines.narrow_dots import NarrowDots
from recsys.core.specs import RowType
from recsys.export.bundle import module_bytes
from recsys.export.script import script_model
from recsys.retrieval.recommender import DotRecommender

BYTES = {RowType.FLOAT16: 2 * 12, RowType.INT8: 12 + 8, RowType.INT4: 6 + 4, RowType.INT2: 3 + 4}
"""Of a row of 12 values: codes, then scale and bias, float32 at one byte a value, else float16."""


def rounded(rows: Tensor, row_type: RowType) -> Tensor:
    """Each value by the nearest of 2^bits levels between the row's extremes."""
    if row_type is RowType.FLOAT16:
        return rows.half().float()
    levels, kind = 2**row_type.bits - 1, torch.float32 if row_type is RowType.INT8 else torch.float16
    found = []
    for row in rows.tolist():
        low = torch.tensor(min(row)).to(kind).float().item()
        scale = torch.tensor((max(row) - low) / levels).to(kind).float().item() or 1.0
        found.append([low + scale * min(max(round((value - low) / scale), 0), levels) for value in row])
    return torch.tensor(found)


@pytest.mark.parametrize("row_type", BYTES)
def test_scores_are_those_of_rounded_rows(row_type: RowType) -> None:
    generator = torch.Generator().manual_seed(3)
    matrices = {name: torch.randn(size, 12, generator=generator) for name, size in (("users", 5), ("items", 9))}
    matrices["fold_in"] = torch.randn(9, 12, generator=generator)
    exact = DotRecommender(**matrices)
    narrow = NarrowDots(exact, row_type)
    assert module_bytes(narrow) == (5 + 9 + 9) * BYTES[row_type] and module_bytes(exact) == (5 + 9 + 9) * 48

    rows = {name: rounded(matrix, row_type) for name, matrix in matrices.items()}
    asked = torch.tensor([3, 0, 0, 1]), torch.tensor([2, 7, 7, 8, 1]), torch.tensor([0, 1, 4, 4, 5])
    new = rows["fold_in"][[7, 7, 8]].sum(0) / 3**0.5
    expected = torch.stack([rows["users"][3], new, torch.zeros(12), rows["users"][1]]) @ rows["items"].t()
    torch.testing.assert_close(script_model(narrow)(*asked), expected, rtol=1e-3, atol=2e-2)
    torch.testing.assert_close(narrow.item_vectors(), rows["items"], rtol=1e-3, atol=2e-3)


def test_rows_that_would_not_be_smaller_stay() -> None:
    exact = DotRecommender(users=torch.randn(4, 2), items=torch.randn(6, 2), fold_in=torch.randn(6, 2))
    narrow = NarrowDots(exact, RowType.INT8)
    assert module_bytes(narrow) == module_bytes(exact) and torch.equal(narrow.item_vectors(), exact.items)


def test_a_scripted_file_makes_its_numbers_where_its_tables_are() -> None:
    """On the meta device, in place of a GPU: a tensor made on the CPU would meet tables that are elsewhere."""
    exact = DotRecommender(users=torch.randn(4, 12), items=torch.randn(6, 12), fold_in=torch.randn(6, 12))
    scripted = script_model(NarrowDots(exact, RowType.FLOAT16)).to("meta")
    asked = [torch.tensor(ids, device="meta") for ids in ([3, 1], [2, 5, 1], [0, 1, 3])]
    assert scripted.item_vectors().is_meta and scripted.user_vectors(asked[0]).is_meta
    assert scripted.sums_of(asked[1], asked[2]).is_meta
