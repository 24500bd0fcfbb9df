"""Is a budget met, or refused with the true floor? And are hashed rows reached alike?"""

import re
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec
from recsys.embeddings.method import MethodConfig

RATIOS = (2, 5, 10, 100)
SIZES = [(1,), (2,), (3, 1), (7,), (10,), (64, 65), (100, 3, 1), (1000,), (999, 2, 40), (12_345,), (10**6, 50, 1)]
SIZES += [(10**9, 7)]


def features_of(sizes: Sequence[int], width: int) -> list[FeatureSpec]:
    """One feature for each size; every second has counts."""
    return [
        FeatureSpec(name=f"f{i}", embedding_dim=width, num_embeddings=size, octave_counts=(9, 5, 3, 1) if i % 2 else ())
        for i, size in enumerate(sizes)
    ]


def check(make: Callable[..., MethodConfig], features: Sequence[FeatureSpec], ratio: float) -> TablePlan | None:
    """The plan within the budget. None if it is refused; then the stated floor is accepted, and one byte less is not.

    The features must have one width: budgets are split among widths before anything is planned.
    """
    budget = int(sum((f.num_embeddings or 0) * f.embedding_dim * 4 for f in features) / ratio)
    try:
        plan = make(compression_ratio=ratio).plan(features)
    except ConfigError as error:
        message = str(error)
    else:
        assert plan.num_bytes <= budget
        return plan
    needed = re.search(r"needs ([\d,]+) bytes, above the budget of ([\d,]+)", message)
    assert needed, message
    floor = int(needed[1].replace(",", ""))
    assert floor > budget == int(needed[2].replace(",", ""))
    assert make(budget_mib=floor / 2**20).plan(features).num_bytes == floor
    with pytest.raises(ConfigError, match=f"needs {floor:,} bytes"):
        make(budget_mib=(floor - 1) / 2**20).plan(features)
    return None


def assert_uniform(rows: Tensor, num_rows: int) -> None:
    """Pearson's statistic lies within 5 deviations of its mean; all rows are in range."""
    counts = torch.bincount(rows.reshape(-1), minlength=num_rows).double()
    assert counts.numel() == num_rows
    expected = rows.numel() / num_rows
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    assert abs(statistic - (num_rows - 1)) < 5 * (2 * (num_rows - 1)) ** 0.5
