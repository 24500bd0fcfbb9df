"""Rows trained on grids, of a table or of a row: what is served is the trained forward, to the rounding of float32."""

from dataclasses import replace

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.row_storage import unpack
from recsys.core.specs import RowType
from recsys.embeddings.alpt import ALPTConfig
from recsys.embeddings.frozen import build_frozen
from recsys.embeddings.full import FullConfig
from recsys.embeddings.grid import GridConfig, pack_grid
from recsys.embeddings.qat import QATConfig
from tests.embeddings import dense_reference as reference
from tests.embeddings.grid import FEATURES, trained

BAGS = reference.random_bags({"a": 50}, 12, seed=0, max_length=4) | reference.random_bags(
    {"b": 7}, 12, seed=0, max_length=1
)
TYPES = pytest.mark.parametrize("row_type", [RowType.INT8, RowType.INT4, RowType.INT2])


def test_stored_row_by_hand() -> None:
    # step 0.25, 4 bits: codes 3 / 0.25 -> 7 (the highest), -0.3 / 0.25 -> -1, 0.4 / 0.25 -> 2; each plus 8
    packed = pack_grid(torch.tensor([[3.0, -0.3, 0.4]]), torch.tensor([0.25]), RowType.INT4)
    # low half of a byte first; float16 of 0.25 is 0x3400, of -8 * 0.25 is 0xC000
    assert packed.tolist() == [[15 | 7 << 4, 10, 0x00, 0x34, 0x00, 0xC0]]


def test_packed_codes_unpack_to_the_grid() -> None:
    table = torch.randn((20, 5), generator=torch.Generator().manual_seed(0))
    (spec,) = FullConfig().plan([replace(FEATURES[1], embedding_dim=5)]).tables
    rows = unpack(pack_grid(table, torch.tensor([0.5]), RowType.INT2), replace(spec, row_type=RowType.INT2))
    assert torch.equal(rows, (table / 0.5).round().clamp(-2, 1) * 0.5)


@TYPES
@pytest.mark.parametrize("config", [QATConfig(), QATConfig(learn_step=False), ALPTConfig(step_rate=0.7)])
def test_served_equals_trained(config: GridConfig, row_type: RowType) -> None:
    config = replace(config, row_type=row_type)
    collection, parts = trained(config)
    frozen = config.freeze(parts)
    assert frozen.plan == config.serving_plan(parts.plan)
    assert not any(table.name.startswith("steps") for table in frozen.plan.tables)
    served, want = build_frozen(frozen)(reference.jagged(BAGS)), collection(reference.jagged(BAGS))
    torch.testing.assert_close(served.values(), want.values(), rtol=0, atol=1e-6)
    again = config.freeze(parts)
    assert all(torch.equal(frozen.tables[name], table) for name, table in again.tables.items())


@TYPES
@pytest.mark.parametrize("config", [QATConfig(step=0.3), ALPTConfig(step=0.3)])
def test_values_and_gradients_equal_the_dense_reference(config: GridConfig, row_type: RowType) -> None:
    # Half the init's rows lie beyond the narrower grids.
    collection, parts = trained(replace(config, row_type=row_type))
    tables, states = reference.dense_tables(parts.plan, collection), reference.states_of(collection)
    out = collection(reference.jagged(BAGS)).values()
    want = reference.pooled(parts.plan, tables, BAGS, states)
    torch.testing.assert_close(out, want)
    upstream = torch.randn(want.shape, generator=torch.Generator().manual_seed(1))
    (out * upstream).sum().backward()
    (want * upstream).sum().backward()
    reference.assert_same_gradients(parts.plan, collection, tables)
    reference.assert_same_combiner_gradients(collection, states)


TRAINED_BYTES = [
    (QATConfig(), 57 * 10 * 4 + 50 * 4 + 2 * 4),  # two steps
    (ALPTConfig(), 57 * 11 * 4 + 50 * 4),  # a step for every row
]


@pytest.mark.parametrize(("row_type", "row_bytes"), [(RowType.INT8, 18), (RowType.INT4, 9), (RowType.INT2, 7)])
@pytest.mark.parametrize(("config", "trained_bytes"), TRAINED_BYTES)
def test_bytes_and_budget(config: GridConfig, trained_bytes: int, row_type: RowType, row_bytes: int) -> None:
    config = replace(config, row_type=row_type)
    plan = config.plan(FEATURES)
    needed = 57 * row_bytes + 50 * 4
    assert config.serving_plan(plan).num_bytes == needed
    assert plan.num_bytes == trained_bytes
    _, parts = trained(config)
    frozen = config.freeze(parts)
    assert sum(table.numel() * table.element_size() for table in frozen.tables.values()) == needed
    assert replace(config, budget_mib=needed / 2**20).plan(FEATURES) == plan
    with pytest.raises(ConfigError, match=f"needs {needed:,} bytes"):
        replace(config, budget_mib=(needed - 1) / 2**20).plan(FEATURES)
