"""Rows of fewer bits: bytes by hand, error within half a step, and which tables stay as they are."""

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.parts import EmbeddingParts
from recsys.core.row_storage import unpack_tables
from recsys.core.specs import FeatureSpec, RowType
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.frozen import build_frozen, parts_of
from recsys.embeddings.row_type import RowTypeConfig
from tests.embeddings import dense_reference as reference

FEATURES = [
    FeatureSpec(name="a", embedding_dim=10, num_embeddings=50, max_length=4),
    FeatureSpec(name="tiny", embedding_dim=10, num_embeddings=3),
    FeatureSpec(name="a__linear", embedding_dim=1, num_embeddings=50, source="a"),
]
NARROW = [RowType.FLOAT16, RowType.INT8, RowType.INT4, RowType.INT2]


def trained(config: RowTypeConfig) -> EmbeddingParts:
    collection = PlannedEmbeddingBagCollection(config.plan(FEATURES))
    reference.randomise(collection, seed=0)
    tables = reference.dense_tables(collection.plan, collection)
    return parts_of(collection, {name: table.detach() for name, table in tables.items()})


@pytest.mark.parametrize(
    ("row_type", "wide", "narrow"),
    [(RowType.FLOAT16, 20, 2), (RowType.INT8, 10 + 8, 4), (RowType.INT4, 5 + 4, 4), (RowType.INT2, 3 + 4, 4)],
)
def test_bytes_by_hand(row_type: RowType, wide: int, narrow: int) -> None:
    config = RowTypeConfig(row_type=row_type)
    plan = config.plan(FEATURES)
    assert plan.num_bytes == 53 * 10 * 4 + 50 * 4
    served = config.serving_plan(plan)
    assert served.num_bytes == 53 * wide + 50 * narrow
    frozen = config.freeze(trained(config))
    assert sum(table.numel() * table.element_size() for table in frozen.tables.values()) == served.num_bytes


@pytest.mark.parametrize("row_type", NARROW)
def test_frozen_rows_are_within_half_a_step_of_the_trained_ones(row_type: RowType) -> None:
    config = RowTypeConfig(row_type=row_type)
    parts = trained(config)
    frozen = config.freeze(parts)
    assert frozen.plan == config.serving_plan(parts.plan)
    assert all(torch.equal(frozen.tables[name], again) for name, again in config.freeze(parts).tables.items())
    for name, rows in unpack_tables(frozen.tables, frozen.plan.tables).items():
        span = parts.tables[name].amax(1, keepdim=True) - parts.tables[name].amin(1, keepdim=True)
        steps = 2**row_type.bits - 1 if row_type is not RowType.FLOAT16 else 2**11
        bound = span / steps / 2 + 4 * 2.0**-11  # scale, bias or value rounded to float16, of magnitude below 4
        assert (rows - parts.tables[name]).abs().le(bound).all()


def test_served_collection_is_the_packed_rows() -> None:
    config = RowTypeConfig(row_type=RowType.INT4)
    frozen = config.freeze(trained(config))
    bags = reference.random_bags({"a": 50, "tiny": 3}, 9, seed=1, max_length=4)
    want = reference.pooled(frozen.plan, unpack_tables(frozen.tables, frozen.plan.tables), bags)
    torch.testing.assert_close(build_frozen(frozen)(reference.jagged(bags)).values(), want)


def test_tiny_features_stay_float32() -> None:
    config = RowTypeConfig(row_type=RowType.INT8, full_below=3)
    served = config.serving_plan(config.plan(FEATURES))
    assert {t.name: t.row_type for t in served.tables} == {
        "table_a": RowType.INT8,
        "table_tiny": RowType.FLOAT32,
        "table_a__linear": RowType.FLOAT32,  # 1 + 8 bytes a row would be more than 4
    }


def test_budget_checks_what_is_served() -> None:
    needed = 53 * 18 + 50 * 4
    config = RowTypeConfig(row_type=RowType.INT8, budget_mib=needed / 2**20)
    assert config.serving_plan(config.plan(FEATURES)).num_bytes == needed
    assert RowTypeConfig(row_type=RowType.INT8, compression_ratio=1.5).plan(FEATURES) == config.plan(FEATURES)
    with pytest.raises(ConfigError, match=f"needs {needed:,} bytes, above the budget"):
        RowTypeConfig(row_type=RowType.INT8, budget_mib=(needed - 1) / 2**20).plan(FEATURES)


def test_float32_and_hashed_features_are_refused() -> None:
    with pytest.raises(ConfigError, match="Use embedding=full"):
        RowTypeConfig(row_type=RowType.FLOAT32)
    with pytest.raises(ConfigError, match="no vocabulary"):
        RowTypeConfig(row_type=RowType.INT8).plan([FeatureSpec(name="a", embedding_dim=4, num_embeddings=None)])
