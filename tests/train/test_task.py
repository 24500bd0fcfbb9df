"""The loss of clicks, by hand: binary cross entropy, and self-distillation of models with streams."""

import math

import pytest
import torch
from torch import Tensor
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.batch import Batch
from recsys.core.specs import FeatureSpec
from recsys.models.ctr import CtrModel
from recsys.models.finalnet import FinalNetConfig
from recsys.train.task import ClickTask, click_loss


def binary_cross_entropy(logit: float, target: float) -> float:
    """-t ln p - (1 - t) ln(1 - p) with p = sigmoid(logit), in a form that no large logit breaks."""
    return max(logit, 0.0) - logit * target + math.log1p(math.exp(-abs(logit)))


def test_logits_alone_by_hand() -> None:
    # sigmoid(ln 3) = 3/4
    loss, reported = click_loss(torch.tensor([0.0, math.log(3)]), torch.tensor([1.0, 0.0]))
    assert reported is loss
    assert loss.item() == pytest.approx(math.log(2) + math.log(4))


def test_streams_learn_the_logits_probability_by_hand() -> None:
    # The logits say 1/2. A stream that says 3/4 or 1/4 pays -(ln 3/4 + ln 1/4) / 2, one that says 1/2 pays ln 2.
    streams = [math.log(3), -math.log(3), 0.0]
    outputs = torch.tensor([[0.0, *streams]], requires_grad=True)
    loss, reported = click_loss(outputs, torch.tensor([1.0]))
    assert reported.item() == pytest.approx(math.log(2)), "the log loss of the logits, without what streams pay"
    assert loss.item() == pytest.approx(math.log(2) - math.log(3 / 16) + math.log(2))
    loss.backward()
    assert outputs.grad is not None
    # The logits' gradient is sigmoid - label: of what they teach they feel nothing. A stream's is sigmoid - 1/2.
    assert outputs.grad[0].tolist() == pytest.approx([-0.5, 0.25, -0.25, 0.0])


def test_rows_and_streams_add_up() -> None:
    outputs, labels = [[0.3, -1.0, 2.0], [-2.0, 0.5, 0.1], [40.0, -40.0, 0.0]], [1.0, 0.0, 1.0]
    expected = 0.0
    for (logit, *streams), label in zip(outputs, labels, strict=True):
        taught = 1 / (1 + math.exp(-logit))
        expected += binary_cross_entropy(logit, label) + sum(binary_cross_entropy(y, taught) for y in streams)
    assert click_loss(torch.tensor(outputs), torch.tensor(labels)).objective.item() == pytest.approx(expected, rel=1e-6)


def test_a_column_without_streams_is_the_logits() -> None:
    logits, labels = torch.tensor([0.3, -2.0]), torch.tensor([1.0, 0.0])
    found, expected = click_loss(logits.unsqueeze(1), labels), click_loss(logits, labels)
    assert found.objective.item() == found.reported.item() == expected.objective.item()


@pytest.mark.parametrize("outputs", [torch.zeros(0), torch.zeros(0, 3)])
def test_no_row_costs_nothing(outputs: Tensor) -> None:
    assert [part.item() for part in click_loss(outputs, torch.zeros(0))] == [0.0, 0.0]


def two_columns() -> tuple[CtrModel, KeyedJaggedTensor]:
    """FinalNet-2B over two columns of four ids, and three rows for it."""
    config = FinalNetConfig(embedding_dim=4, block1_units=[8], block1_dropout=0.0, block2_units=[4], block2_dropout=0.0)
    features = config.features([FeatureSpec(name=name, embedding_dim=1, num_embeddings=4) for name in ("a", "b")])
    torch.manual_seed(0)
    tables = [
        EmbeddingBagConfig(name=spec.name, feature_names=[spec.name], embedding_dim=4, num_embeddings=4)
        for spec in features
    ]
    ids, lengths = torch.tensor([0, 1, 2, 3, 2, 1]), torch.ones(6, dtype=torch.int64)
    sparse = KeyedJaggedTensor.from_lengths_sync(keys=["a", "b"], values=ids, lengths=lengths)
    return CtrModel(EmbeddingBagCollection(tables=tables), config.build(features, 0)), sparse


def test_the_task_teaches_the_streams_of_a_real_model() -> None:
    model, sparse = two_columns()
    labels = torch.tensor([1.0, 0.0, 1.0])
    outputs = model(torch.zeros(3, 0), sparse)
    assert outputs.shape == (3, 3)
    loss, reported = ClickTask().loss_sum(model, Batch(torch.zeros(3, 0), sparse, labels))
    torch.testing.assert_close(loss, click_loss(outputs, labels).objective)
    torch.testing.assert_close(reported, click_loss(outputs[:, 0], labels).objective)
    assert loss.item() > reported.item()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.eval()(torch.zeros(3, 0), sparse).shape == (3,)


def test_rows_beyond_the_labels_are_padding() -> None:
    model, sparse = two_columns()
    labels = torch.tensor([1.0, 0.0])
    loss = ClickTask().loss_sum(model, Batch(torch.zeros(3, 0), sparse, labels))
    torch.testing.assert_close(loss, click_loss(model(torch.zeros(3, 0), sparse)[:2], labels))
