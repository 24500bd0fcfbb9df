"""Dedup: rows and bytes by hand, exact where rows repeat, blocks kept where ids are frequent."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.embeddings.dedup import DedupConfig, DedupRemap
from recsys.embeddings.full import FullConfig
from tests.embeddings.post_training import (
    assert_equals_reference,
    assert_frozen_as_planned,
    assert_scripts,
    error,
    served_rows,
    trained,
    users_and_tags,
)

FEATURES = users_and_tags(1001)


def test_trains_what_full_trains() -> None:
    assert DedupConfig(compression_ratio=5).plan(FEATURES).fingerprint == FullConfig().plan(FEATURES).fingerprint


@pytest.mark.parametrize("block_rows", [1, 8])
@pytest.mark.parametrize("ratio", [1.5, 5.0, 30.0])
def test_frozen_parts_are_those_of_the_serving_plan(ratio: float, block_rows: int) -> None:
    config = DedupConfig(compression_ratio=ratio, block_rows=block_rows)
    frozen = assert_frozen_as_planned(config, trained(config.plan(FEATURES), decay=0.3))
    assert frozen.plan.num_bytes > (0.98 if block_rows == 1 else 0.7) * config.budget_bytes(FEATURES)
    assert_scripts(frozen)


def test_served_embeddings_equal_the_dense_reference() -> None:
    small = [replace(f, num_embeddings=min(f.num_embeddings or 0, 61)) for f in FEATURES]
    config = DedupConfig(compression_ratio=4, block_rows=8)
    frozen = config.freeze(trained(config.plan(small)))
    assert any(entry.remap.target.endswith("DedupRemap") for entry in frozen.plan.features)
    assert_equals_reference(frozen)


def test_rows_by_hand() -> None:
    """Blocks of 3: ids 0..2 at block 1, 3..5 at block 0, 6 at block 1 again."""
    remap = DedupRemap(num_ids=7, block_rows=3, num_kept=2)
    remap.fill(torch.tensor([1, 0, 1]))
    assert remap.blocks.tolist() == [0b101, 0, 0, 0]
    assert remap(torch.arange(7)).tolist() == [[3, 4, 5, 0, 1, 2, 3]]


def test_bytes_by_hand() -> None:
    """8000 ids of width 16 in blocks of 8 at ratio 16: 32,000 bytes. 61 blocks of 512, and 6 bits for each of 1000."""
    feature = [FeatureSpec(name="a", embedding_dim=16, num_embeddings=8000)]
    config = DedupConfig(compression_ratio=16, block_rows=8)
    served = config.serving_plan(config.plan(feature))
    assert served.table_bytes == 61 * 512 == 31_232 and served.remap_bytes == 750 + 3


def test_repeated_blocks_are_exact() -> None:
    feature = [FeatureSpec(name="a", embedding_dim=8, num_embeddings=1000)]
    config = DedupConfig(compression_ratio=5, block_rows=8)
    parts = trained(config.plan(feature))
    parts.tables["table_a"][:] = parts.tables["table_a"][:80].repeat(13, 1)[:1000]
    assert torch.equal(served_rows(config.freeze(parts))["a"], parts.tables["table_a"])


@pytest.mark.parametrize("block_rows", [1, 8])
def test_error_falls_with_bytes_and_nothing_is_lost_without_a_budget(block_rows: int) -> None:
    configs = [DedupConfig(compression_ratio=ratio, block_rows=block_rows) for ratio in (40, 10, 4, 2, 1.0)]
    features = [replace(feature, octave_counts=()) for feature in FEATURES]
    errors = [error(config, features, decay=0.5) for config in configs]
    assert all(more > less for more, less in pairwise(errors)) and errors[-1] == 0


def test_frequent_ids_keep_their_rows() -> None:
    counts = (100_000, 50_000, 25_000, 12_000, 6000, 3000, 400, 200, 100, 50)
    feature = [FeatureSpec(name="a", embedding_dim=8, num_embeddings=1000, octave_counts=counts)]
    config = DedupConfig(compression_ratio=4)
    parts = trained(config.plan(feature))
    lost = (served_rows(config.freeze(parts))["a"] - parts.tables["table_a"]).square().mean(1)
    assert lost[:16].mean() < 0.02 * lost[300:].mean()


def test_the_floor_is_said_and_accepted() -> None:
    feature = [FeatureSpec(name="a", embedding_dim=16, num_embeddings=80_000)]
    floor = 8 * 16 * 4 + 10_000 // 8 + 3
    with pytest.raises(ConfigError, match=rf"dedup needs {floor:,} bytes"):
        DedupConfig(compression_ratio=1e6, block_rows=8).plan(feature)
    DedupConfig(budget_mib=floor / 2**20, block_rows=8).plan(feature)


def test_blocks_without_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="block_rows=0: a block has at least one row"):
        DedupConfig(block_rows=0)
