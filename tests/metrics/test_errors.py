"""RMSE, MAE, R² and mean error: by hand, as scikit-learn has them, in parts, and undefined with a reason."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import Tensor

from recsys.core.errors import DataError
from recsys.metrics import (
    Clusters,
    ErrorSums,
    cluster_bootstrap,
    clustered_mean,
    mae,
    mean_error,
    mean_label_of,
    r2,
    r2_of,
    resampled_errors,
    rmse,
    rmse_of,
)


def rows(seed: int, *, far: float = 0.0, size: int = 501) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, predictions, and weights of which some are 0."""
    generator = torch.Generator().manual_seed(seed)
    labels = far + torch.randint(1, 6, (size,), generator=generator).double()
    predictions = labels * 0.5 + far * 0.5 + torch.randn(size, generator=generator).double()
    return labels, predictions, torch.randint(0, 4, (size,), generator=generator).double() / 2


def test_by_hand() -> None:
    labels, predictions = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([2.0, 2.0, 4.0])
    assert rmse(labels, predictions).value == pytest.approx(math.sqrt(5 / 3))
    assert mae(labels, predictions).value == pytest.approx(1.0)
    assert mean_error(labels, predictions).value == pytest.approx(-1 / 3)
    assert r2(labels, predictions).value == pytest.approx(1 - 5 / 14)


@pytest.mark.parametrize("far", [0.0, -7.0, 1e6])
@pytest.mark.parametrize("weighted", [False, True])
def test_equal_to_scikit_learn(far: float, weighted: bool) -> None:
    labels, predictions, weights = rows(3, far=far)
    used = weights if weighted else None
    known = {"sample_weight": weights.numpy()} if weighted else {}
    pair = labels.numpy(), predictions.numpy()
    assert rmse(labels, predictions, used).value == pytest.approx(root_mean_squared_error(*pair, **known), rel=1e-9)
    assert mae(labels, predictions, used).value == pytest.approx(mean_absolute_error(*pair, **known), rel=1e-9)
    assert r2(labels, predictions, used).value == pytest.approx(r2_score(*pair, **known), rel=1e-9)
    mean = np.average(pair[1] - pair[0], weights=known.get("sample_weight"))
    assert mean_error(labels, predictions, used).value == pytest.approx(mean, abs=1e-9)


def test_a_weight_counts_as_so_many_rows() -> None:
    labels, predictions, weights = rows(5)
    repeated = torch.repeat_interleave(torch.arange(labels.numel()), (2 * weights).long())
    for metric in (rmse, mae, r2, mean_error):
        expected = metric(labels[repeated], predictions[repeated])
        assert metric(labels, predictions, weights).value == pytest.approx(expected.value)


def test_parts_add_up() -> None:
    labels, predictions, weights = rows(7, far=1e5)
    pieces = torch.arange(labels.numel()).split(61)
    parts = [ErrorSums.of(labels[p], predictions[p], weights[p]) for p in pieces]
    merged, whole = ErrorSums.merged([*parts, ErrorSums()]), ErrorSums.of(labels, predictions, weights)
    assert r2_of(merged).value == pytest.approx(r2_of(whole).value, rel=1e-9)
    assert rmse_of(merged).value == pytest.approx(rmse_of(whole).value, rel=1e-12)
    assert mean_label_of(merged).value == pytest.approx(mean_label_of(whole).value, rel=1e-12)


def test_undefined_with_its_reason() -> None:
    nothing = torch.empty(0)
    for metric in (rmse, mae, r2, mean_error):
        assert "no rows" in metric(nothing, nothing).undefined_reason
        assert "no rows" in metric(torch.ones(2), torch.ones(2), torch.zeros(2)).undefined_reason
    equal = torch.full((7,), 0.1)
    assert "all labels are 0.1" in r2(equal, torch.arange(7.0)).undefined_reason
    assert rmse(equal, equal).value == 0


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([1.0, math.nan], [1.0, 2.0], r"labels: 1 of 2 value\(s\) not finite, the first at row 1"),
        ([1.0, 2.0], [math.inf, 2.0], r"predictions: 1 of 2 value\(s\) not finite, the first at row 0"),
        ([1.0, 2.0], [1.0], "shape"),
    ],
)
def test_impossible_rows_are_refused(labels: list[float], predictions: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rmse(torch.tensor(labels), torch.tensor(predictions))


@pytest.mark.parametrize("weighted", [False, True])
def test_resampled_metrics_are_those_of_the_drawn_rows(weighted: bool) -> None:
    labels, predictions, weights = rows(11, far=1e5, size=60)
    clusters = Clusters.of(torch.arange(60) % 7)
    statistics = resampled_errors(clusters, labels, predictions, weights if weighted else None)
    drawn = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [3, 0, 0, 2, 1, 1, 0]])
    for name, metric in (("rmse", rmse), ("mae", mae), ("r2", r2), ("mean_error", mean_error)):
        for row, found in zip(drawn, statistics[name](drawn).tolist(), strict=True):
            taken = torch.repeat_interleave(torch.arange(60), row[clusters.index])
            expected = metric(labels[taken], predictions[taken], weights[taken] if weighted else None)
            assert found == pytest.approx(expected.value, rel=1e-6)


def test_resampled_r2_of_equal_labels_has_no_value() -> None:
    labels = torch.full((9,), 0.1)
    found = resampled_errors(Clusters.of(torch.arange(9)), labels, torch.arange(9.0))["r2"]
    assert math.isnan(found(torch.ones(1, 9, dtype=torch.int64)).item())


def test_mean_of_clusters_with_its_error() -> None:
    values = torch.randn(40, generator=torch.Generator().manual_seed(1)).double()
    mean, error = clustered_mean(values, torch.arange(40))
    assert mean.value == pytest.approx(values.mean().item())
    assert error.value == pytest.approx(values.std().item() / math.sqrt(40)), "the usual one of independent rows"
    # Rows that repeat each other within groups say no more than one of each.
    repeated, groups = values.repeat(5), torch.arange(40).repeat(5)
    assert clustered_mean(repeated, groups)[1].value == pytest.approx(error.value)
    assert "one group" in clustered_mean(values, torch.zeros(40).long())[1].undefined_reason
    assert clustered_mean(values, torch.arange(40), torch.zeros(40))[0].value is None


def test_its_error_is_the_bootstraps() -> None:
    generator = torch.Generator().manual_seed(2)
    groups = torch.randint(0, 200, (2000,), generator=generator)
    labels, noise = torch.zeros(2000).double(), torch.randn(200, generator=generator).double()
    predictions = noise[groups] + torch.randn(2000, generator=generator).double()
    clusters = Clusters.of(groups)
    statistics = {"mean_error": resampled_errors(clusters, labels, predictions)["mean_error"]}
    found = cluster_bootstrap(statistics, clusters, num_replicates=2000, generator=generator)["mean_error"]
    assert clustered_mean(predictions, groups)[1].value == pytest.approx(found.standard_error.value, rel=0.06)
