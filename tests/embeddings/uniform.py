"""Are hashed rows reached alike?"""

from torch import Tensor, bincount


def assert_uniform(rows: Tensor, num_rows: int) -> None:
    """Pearson's statistic lies within 5 deviations of its mean; all rows are in range."""
    counts = bincount(rows.reshape(-1), minlength=num_rows).double()
    assert counts.numel() == num_rows
    expected = rows.numel() / num_rows
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    assert abs(statistic - (num_rows - 1)) < 5 * (2 * (num_rows - 1)) ** 0.5
