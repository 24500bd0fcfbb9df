"""Steps learned one a row: what is its own; see `test_grid` for what is served."""

import math

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec, RowType
from recsys.embeddings.alpt import ALPTConfig, FakeQuantizeRows
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from tests.embeddings import dense_reference as reference
from tests.embeddings.grid import FEATURES, trained


def test_combined_row_by_hand() -> None:
    # exp(0.5 * 2 ln 2) = 2, so the step is 0.5 and the codes of 4 bits are round(-0.6), round(2.4) and 7 for 20
    combiner = FakeQuantizeRows(bits=4, dim=3, step=0.25, step_rate=0.5)
    rows = [torch.tensor([[-0.3, 1.2, 10.0]]), torch.tensor([[2 * math.log(2)]])]
    assert combiner(torch.zeros(1, dtype=torch.int64), rows).tolist() == [[-0.5, 1.0, 3.5]]


def test_steps_start_at_their_first_value() -> None:
    plan = ALPTConfig().plan(FEATURES)
    collection = PlannedEmbeddingBagCollection(plan)
    assert not reference.table_parameters(collection)["steps_a"].any()
    combiner = plan.features[0].combiner.build()
    assert isinstance(combiner, FakeQuantizeRows)
    assert combiner.steps(torch.zeros(3, 1)).tolist() == [[0.01000213623046875]] * 3, "0.01 as float16 stores it"


def test_tiny_and_narrow_features_are_left_alone() -> None:
    config = ALPTConfig(full_below=7)
    plan = config.plan(FEATURES)
    assert [entry.tables for entry in plan.features] == [("table_a", "steps_a"), ("table_b",), ("table_a__linear",)]
    served = config.serving_plan(plan)
    assert [table.row_type for table in served.tables].count(RowType.INT8) == 1
    _, parts = trained(config)
    assert torch.equal(config.freeze(parts).tables["table_b"], parts.tables["table_b"])


def test_training_gives_every_row_a_step_of_its_own() -> None:
    torch.manual_seed(0)
    collection = PlannedEmbeddingBagCollection(ALPTConfig(row_type=RowType.INT4, step_rate=0.5).plan(FEATURES[1:2]))
    scales = torch.tensor([0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6])
    features, target = reference.jagged({"b": [[i] for i in range(7)]}), torch.randn(7, 10) * scales.unsqueeze(1)
    optimizer = torch.optim.Adam(collection.parameters(), lr=0.03)
    for _ in range(500):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(collection(features).values(), target).backward()
        optimizer.step()
    error = (collection(features).values() - target).square().mean(1).sqrt() / scales
    assert (error < 0.5).all(), "the first step spans 0.15 only: rows of scale 1.6 would keep an error of 0.95"
    weights = reference.table_parameters(collection)
    assert weights["steps_b"][6, 0] > weights["steps_b"][0, 0] + 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step_rate": 0.0}, "step_rate=0.0"),
        ({"step": 0.0}, "float16 can store it"),
        ({"row_type": RowType.FLOAT16}, "embedding=fp16"),
    ],
)
def test_impossible_options_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ALPTConfig(**values)  # type: ignore[arg-type]


def test_hashed_features_are_refused() -> None:
    with pytest.raises(ConfigError, match="no vocabulary"):
        ALPTConfig().plan([FeatureSpec(name="a", embedding_dim=4, num_embeddings=None)])
