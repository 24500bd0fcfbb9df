"""What a row's weight does to a training step: two rows for one of weight 2, none for one of weight 0."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.batch import Batch
from recsys.metrics import auc, log_loss
from recsys.train.config import DeviceConfig, OptimizerConfig, TableOptimizer, TrainConfig
from recsys.train.score import score
from recsys.train.session import process_group, shard
from recsys.train.tables import initialize_tables, local_parts
from recsys.train.task import click_loss
from recsys.train.trainer import Trainer
from tests.train.worker import BATCH, ROWS, Ordered, Rows, build, drawn_weights


@pytest.fixture
def device() -> Iterator[torch.device]:
    with process_group(DeviceConfig()) as found:
        yield found


def trainer_in(folder: Path, device: torch.device) -> Trainer:
    model, plan = build()
    config = OptimizerConfig(table=TableOptimizer.ROWWISE_ADAGRAD, table_learning_rate=0.05, dense_learning_rate=0.01)
    session = shard(model, config, DeviceConfig(), device)
    initialize_tables(session.model.state_dict(), plan, seed=5)
    options = TrainConfig(epochs=2, batch_size=BATCH, eval_batch_size=BATCH, optimizer=config)
    return Trainer(session, plan, options, folder)


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    state = trainer.session.model.state_dict()
    return {name: torch.cat([part.detach().flatten() for part, *_ in local_parts(v)]) for name, v in state.items()}


def test_weights_of_one_change_no_bit(device: torch.device, tmp_path: Path) -> None:
    found = []
    for name, weights in (("without", None), ("ones", torch.ones(ROWS))):
        trainer = trainer_in(tmp_path / name, device)
        progress = trainer.run(Rows(0, 1, weights), Ordered(0, 1, weights), seed=11)
        figures = [{k: v for k, v in row.items() if k != "rows_per_second"} for row in progress.history]
        found.append((figures, weights_of(trainer)))
    (figures, without), (weighted_figures, ones) = found
    for name, expected in without.items():
        assert torch.equal(ones[name], expected), name
    assert [row["train_loss"] for row in figures] == [row["train_loss"] for row in weighted_figures]
    assert figures[-1]["validation_auc"] == pytest.approx(weighted_figures[-1]["validation_auc"], abs=1e-12)


def test_a_row_of_weight_two_is_two_rows_and_of_weight_zero_none(device: torch.device, tmp_path: Path) -> None:
    weights = drawn_weights()
    trained = []
    for name in ("weighted", "repeated"):
        trainer = trainer_in(tmp_path / name, device)
        for number in range(4):
            rows = torch.arange(number * BATCH, (number + 1) * BATCH)
            own = weights[rows]
            assert (own == 0).any() and (own >= 2).any()
            if name == "repeated":
                batch = Rows(0, 1)._batch(torch.repeat_interleave(rows, own.long()))
            else:
                batch = replace(Rows(0, 1)._batch(rows), weights=own, mean_weight=float(own.mean()))
            trainer._step(batch, batch.labels.numel())
        trained.append(weights_of(trainer))
    for name, expected in trained[1].items():
        torch.testing.assert_close(trained[0][name], expected, rtol=2e-5, atol=2e-6, msg=name)


def test_streams_are_weighted_too() -> None:
    outputs, labels = torch.tensor([[0.3, -1.0], [2.0, 0.5], [0.1, 4.0]]), torch.tensor([1.0, 0.0, 1.0])
    found = click_loss(outputs, labels, torch.tensor([2.0, 0.0, 1.0]))
    expected = click_loss(outputs[[0, 0, 2]], labels[[0, 0, 2]])
    assert found.objective.item() == pytest.approx(expected.objective.item(), rel=1e-6)
    assert found.reported.item() == pytest.approx(expected.reported.item(), rel=1e-6)


def test_a_batch_that_weighs_nothing_moves_nothing(device: torch.device, tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, device)
    before = weights_of(trainer)
    nothing = replace(next(Rows(0, 1).epoch(0)), weights=torch.zeros(BATCH))
    trainer._step(nothing, BATCH)
    for name, value in weights_of(trainer).items():
        assert torch.equal(value, before[name]), name


def test_validation_counts_by_weight(device: torch.device, tmp_path: Path) -> None:
    weights, trainer = drawn_weights(), trainer_in(tmp_path, device)
    logits, labels, kept = score(trainer.session, Ordered(0, 1, weights), "validation")
    assert kept is not None and torch.equal(kept, weights)
    figures = trainer.task.evaluate(trainer.session, Ordered(0, 1, weights))
    repeated = torch.repeat_interleave(weights.long())
    assert figures["validation_auc"] == pytest.approx(auc(labels[repeated], logits[repeated]).value_or(0), abs=1e-12)
    assert figures["validation_log_loss"] == pytest.approx(log_loss(labels[repeated], logits[repeated]).value_or(0))


def test_padding_and_moving_keep_weights() -> None:
    sparse = KeyedJaggedTensor(keys=["a"], values=torch.tensor([1, 2]), lengths=torch.tensor([1, 1]))
    batch = Batch(torch.zeros(2, 1), sparse, torch.zeros(2), torch.tensor([1.0, 3.0]), 2.0)
    moved = batch.padded(5).to(torch.device("cpu"))
    assert moved.weights is not None and moved.weights.tolist() == [1.0, 3.0]
    assert (moved.mean_weight, moved.dense.shape[0], moved.labels.numel()) == (2.0, 5, 2)
