"""Quantization-aware training: what is served is the trained forward, to the rounding of float32."""

from dataclasses import replace

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.parts import EmbeddingParts
from recsys.core.row_storage import unpack
from recsys.core.specs import FeatureSpec, Init, Pooling, RowType
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.frozen import build_frozen, parts_of
from recsys.embeddings.grid import pack_grid
from recsys.embeddings.qat import FakeQuantize, QATConfig
from tests.embeddings import dense_reference as reference

FEATURES = [
    FeatureSpec(name="a", embedding_dim=10, num_embeddings=50, max_length=4, pooling=Pooling.MEAN),
    FeatureSpec(name="b", embedding_dim=10, num_embeddings=7, max_length=1),
    FeatureSpec(name="a__linear", embedding_dim=1, num_embeddings=50, source="a"),
]
TYPES = [RowType.INT8, RowType.INT4, RowType.INT2]


def bags(seed: int = 0) -> reference.Bags:
    one = reference.random_bags({"b": 7}, 12, seed=seed, max_length=1)
    return reference.random_bags({"a": 50}, 12, seed=seed, max_length=4) | one


def trained(config: QATConfig) -> tuple[PlannedEmbeddingBagCollection, EmbeddingParts]:
    """Rows of order 1, steps moved away from their first value."""
    collection = PlannedEmbeddingBagCollection(config.plan(FEATURES)).eval()
    reference.randomise(collection, seed=0)
    for name, parameter in collection.named_parameters():
        if name.endswith("log_ratio"):
            parameter.data.fill_(0.37)
    tables = reference.dense_tables(collection.plan, collection)
    return collection, parts_of(collection, {name: table.detach() for name, table in tables.items()})


def test_stored_row_by_hand() -> None:
    # step 0.25, 4 bits: codes 3 / 0.25 -> 7 (the highest), -0.3 / 0.25 -> -1, 0.4 / 0.25 -> 2; each plus 8
    packed = pack_grid(torch.tensor([[3.0, -0.3, 0.4]]), torch.tensor([0.25]), RowType.INT4)
    # low half of a byte first; float16 of 0.25 is 0x3400, of -8 * 0.25 is 0xC000
    assert packed.tolist() == [[15 | 7 << 4, 10, 0x00, 0x34, 0x00, 0xC0]]


@pytest.mark.parametrize("learn_step", [True, False])
@pytest.mark.parametrize("row_type", TYPES)
def test_served_equals_trained(row_type: RowType, learn_step: bool) -> None:
    config = QATConfig(row_type=row_type, learn_step=learn_step)
    collection, parts = trained(config)
    frozen = config.freeze(parts)
    assert frozen.plan == config.serving_plan(parts.plan)
    served, want = build_frozen(frozen)(reference.jagged(bags())), collection(reference.jagged(bags()))
    torch.testing.assert_close(served.values(), want.values(), rtol=0, atol=1e-6)
    again = config.freeze(parts)
    assert all(torch.equal(frozen.tables[name], table) for name, table in again.tables.items())


@pytest.mark.parametrize("row_type", TYPES)
def test_values_and_gradients_equal_the_dense_reference(row_type: RowType) -> None:
    # Half the init's rows lie beyond the narrower grids.
    collection, parts = trained(QATConfig(row_type=row_type, step=0.3))
    tables, states = reference.dense_tables(parts.plan, collection), reference.states_of(collection)
    out = collection(reference.jagged(bags())).values()
    want = reference.pooled(parts.plan, tables, bags(), states)
    torch.testing.assert_close(out, want)
    upstream = torch.randn(want.shape, generator=torch.Generator().manual_seed(1))
    (out * upstream).sum().backward()
    (want * upstream).sum().backward()
    reference.assert_same_gradients(parts.plan, collection, tables)
    reference.assert_same_combiner_gradients(collection, states)


@pytest.mark.parametrize(("row_type", "row_bytes"), [(RowType.INT8, 18), (RowType.INT4, 9), (RowType.INT2, 7)])
def test_bytes_and_budget(row_type: RowType, row_bytes: int) -> None:
    config = QATConfig(row_type=row_type)
    plan = config.plan(FEATURES)
    needed = 57 * row_bytes + 50 * 4
    assert config.serving_plan(plan).num_bytes == needed
    assert plan.num_bytes == 57 * 10 * 4 + 50 * 4 + 2 * 4, "two steps are trained"
    _, parts = trained(config)
    frozen = config.freeze(parts)
    assert sum(table.numel() * table.element_size() for table in frozen.tables.values()) == needed
    assert replace(config, budget_mib=needed / 2**20).plan(FEATURES) == plan
    with pytest.raises(ConfigError, match=f"needs {needed:,} bytes"):
        replace(config, budget_mib=(needed - 1) / 2**20).plan(FEATURES)


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


def test_packed_codes_unpack_to_the_grid() -> None:
    table = torch.randn((20, 5), generator=torch.Generator().manual_seed(0))
    (spec,) = QATConfig(row_type=RowType.INT2).plan([replace(FEATURES[1], embedding_dim=5)]).tables
    rows = unpack(pack_grid(table, torch.tensor([0.5]), RowType.INT2), replace(spec, row_type=RowType.INT2))
    assert torch.equal(rows, (table / 0.5).round().clamp(-2, 1) * 0.5)
