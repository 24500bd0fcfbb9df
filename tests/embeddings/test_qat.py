"""Quantization-aware training: what is its own; see `test_grid` for what is served."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.specs import Init, RowType
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.qat import FakeQuantize, QATConfig
from tests.embeddings import dense_reference as reference
from tests.embeddings.grid import FEATURES


def test_tiny_and_narrow_features_are_left_alone() -> None:
    config = QATConfig(full_below=7)
    plan = config.plan(FEATURES)
    rounded = [isinstance(entry.combiner.build(), FakeQuantize) for entry in plan.features]
    assert rounded == [True, False, False]
    assert [table.row_type for table in config.serving_plan(plan).tables].count(RowType.INT8) == 1


def test_training_moves_rows_and_step_towards_a_target() -> None:
    torch.manual_seed(0)
    config = QATConfig(row_type=RowType.INT4, init=Init(scale=0.01))
    collection = PlannedEmbeddingBagCollection(config.plan(FEATURES[1:2]))
    features, target = reference.jagged({"b": [[i] for i in range(7)]}), torch.randn(7, 10) * 0.3
    optimizer = torch.optim.Adam(collection.parameters(), lr=0.02)

    def loss() -> torch.Tensor:
        return torch.nn.functional.mse_loss(collection(features).values(), target)

    first = loss().item()
    for _ in range(300):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    # The best 4 bits can do spans the target with 16 steps: mean square of step**2 / 12 at least.
    assert first > 0.05 and loss().item() < 0.004


@pytest.mark.parametrize("step", [0.0, -1.0, 1e-5, 300.0, float("nan")])
def test_step_that_float16_cannot_store_is_refused(step: float) -> None:
    with pytest.raises(ConfigError, match="float16 can store it"):
        QATConfig(step=step)


def test_types_without_codes_are_refused() -> None:
    with pytest.raises(ConfigError, match="embedding=fp16"):
        QATConfig(row_type=RowType.FLOAT16)
