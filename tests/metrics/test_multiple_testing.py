"""Adjusted p-values against scipy and the step procedures themselves."""

import math

import pytest
import torch
from scipy.stats import false_discovery_control

from recsys.core.errors import DataError
from recsys.metrics import benjamini_hochberg, holm

CASES = [
    [0.01],
    [0.01, 0.04, 0.03, 0.005],
    [0.5, 0.5, 0.5],
    [0.0, 1.0, -0.0, 1.0],
    [1e-300, 0.9, 1e-300, 0.2, 0.05, 0.05],
    torch.rand(200, generator=torch.Generator().manual_seed(0)).pow(4).tolist(),
]


def rejected_by_holm(p_values: list[float], level: float) -> set[int]:
    """Step down: while the smallest p-value left is at most level over how many are left."""
    found: set[int] = set()
    for row in sorted(range(len(p_values)), key=p_values.__getitem__):
        if p_values[row] * (len(p_values) - len(found)) > level:
            break
        found.add(row)
    return found


@pytest.mark.parametrize("p_values", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_holm_rejects_what_its_procedure_rejects(p_values: list[float], dtype: torch.dtype) -> None:
    given = torch.tensor(p_values, dtype=dtype)
    adjusted = holm(given).tolist()
    for level in (0.001, 0.01, 0.05, 0.3, *adjusted[:9]):
        if level < 1:
            assert {row for row, p in enumerate(adjusted) if p <= level} == rejected_by_holm(given.tolist(), level)
    assert max(adjusted) <= 1 and all(a >= p for a, p in zip(adjusted, given.tolist(), strict=True))


@pytest.mark.parametrize("p_values", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_benjamini_hochberg_equals_scipy(p_values: list[float], dtype: torch.dtype) -> None:
    given = torch.tensor(p_values, dtype=dtype)
    adjusted = benjamini_hochberg(given)
    assert adjusted.tolist() == pytest.approx(false_discovery_control(given.double().numpy()).tolist(), rel=1e-14)
    assert bool((adjusted <= holm(given)).all()) and adjusted.dtype == torch.float64


def test_holm_by_hand() -> None:
    assert holm(torch.tensor([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_of_no_tests_there_is_nothing_to_adjust() -> None:
    assert holm(torch.empty(0)).numel() == benjamini_hochberg(torch.empty(0)).numel() == 0


@pytest.mark.parametrize("wrong", [[0.5, math.nan], [0.5, 1.5], [0.5, -0.1], [[0.5]]])
def test_what_is_no_p_value_is_refused(wrong: list[float]) -> None:
    for adjust in (holm, benjamini_hochberg):
        with pytest.raises(DataError, match="p-values"):
            adjust(torch.tensor(wrong))
