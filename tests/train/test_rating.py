"""The loss of number labels, by hand: squared error of standardised labels, and what streams learn."""

import pytest
import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.batch import Batch
from recsys.core.labels import LabelStatistics
from recsys.train.rating import RatingTask, squared_loss

STARS = LabelStatistics(count=4, mean=3.0, std=2.0)


def test_outputs_alone_by_hand() -> None:
    loss, reported = squared_loss(torch.tensor([0.0, 2.0]), torch.tensor([1.0, -1.0]))
    assert reported is loss
    assert loss.item() == 1 + 9


def test_streams_learn_the_output_by_hand() -> None:
    outputs = torch.tensor([[1.0, 3.0, 0.0]], requires_grad=True)
    loss, reported = squared_loss(outputs, torch.tensor([3.0]))
    assert reported.item() == 4, "the squared error of the output, without what streams pay"
    assert loss.item() == 4 + (3 - 1) ** 2 + 1
    loss.backward()
    assert outputs.grad is not None
    # The output's gradient is 2 (1 - 3): of what it teaches it feels nothing.
    assert outputs.grad[0].tolist() == [-4.0, 4.0, -2.0]


@pytest.mark.parametrize("columns", [0, 1, 3])
def test_rows_count_by_weight(columns: int) -> None:
    outputs = torch.randn(5, columns) if columns else torch.randn(5)
    targets, weights = torch.randn(5), torch.tensor([0.0, 1.0, 2.0, 1.0, 3.0])
    repeated = torch.repeat_interleave(torch.arange(5), weights.long())
    found, expected = squared_loss(outputs, targets, weights), squared_loss(outputs[repeated], targets[repeated])
    assert found.objective.item() == pytest.approx(expected.objective.item(), rel=1e-6)
    assert found.reported.item() == pytest.approx(expected.reported.item(), rel=1e-6)


class Constant(nn.Module):
    """Says the same of every row."""

    def __init__(self, output: float) -> None:
        super().__init__()
        self.output = output

    def forward(self, dense: Tensor, sparse: KeyedJaggedTensor) -> Tensor:
        return torch.full((dense.shape[0],), self.output)


def batch_of(labels: list[float], weights: list[float] | None = None, mean_weight: float = 1.0) -> Batch:
    sparse = KeyedJaggedTensor(keys=["a"], values=torch.empty(0).long(), lengths=torch.zeros(len(labels)).long())
    given = None if weights is None else torch.tensor(weights)
    return Batch(torch.zeros(len(labels), 0), sparse, torch.tensor(labels), given, mean_weight)


def test_the_task_learns_in_standard_deviations_and_reports_in_the_labels_units() -> None:
    # An output of 1/2 predicts 3 + 2/2 = 4 stars: off by 1, 3 and 0.
    loss = RatingTask(STARS).loss_sum(Constant(0.5), batch_of([5.0, 1.0, 4.0]))
    assert loss.reported.item() == pytest.approx(1 + 9)
    assert loss.objective.item() == pytest.approx((1 + 9) / 4)


def test_the_task_divides_by_the_mean_weight() -> None:
    loss = RatingTask(STARS).loss_sum(Constant(0.5), batch_of([5.0, 1.0, 4.0], [1.0, 3.0, 2.0], mean_weight=2.0))
    assert loss.reported.item() == pytest.approx((1 + 3 * 9) / 2)


def test_labels_far_from_zero_keep_their_differences() -> None:
    years = LabelStatistics(count=9, mean=1_000_000.25, std=0.5)
    labels = torch.tensor([1_000_000.0, 1_000_001.0])
    assert years.standardised(labels).tolist() == [-0.5, 1.5]
    assert years.predictions(torch.tensor([-0.5, 1.5])).tolist() == labels.tolist()
