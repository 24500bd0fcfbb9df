from functools import partial

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.hash import HashConfig
from recsys.embeddings.unified import UnifiedConfig
from tests.embeddings import dense_reference as reference
from tests.embeddings.met_or_refused import check_budgets
from tests.embeddings.test_dense_parity import CHECKS, EXTREMES
from tests.embeddings.uniform import assert_uniform
from tests.ops import splitmix64

A = FeatureSpec(name="a", embedding_dim=8, num_embeddings=20_000)
B = FeatureSpec(name="b", embedding_dim=8, num_embeddings=20_000)
IP = FeatureSpec(name="ip", embedding_dim=8, num_embeddings=None, octave_counts=(1,) * 14)


def test_rows_of_every_look_up_are_the_hash_of_its_own_salt() -> None:
    plan = UnifiedConfig(num_lookups=2, lookups={"b": 3}, seed=5, compression_ratio=50).plan([A, B])
    (table,) = plan.tables
    for entry, count in zip(plan.features, (2, 3), strict=True):
        rows = entry.remap.build()(torch.tensor([0, 19_999]))
        for column, key in enumerate((0, 19_999)):
            salts = [splitmix64.salt(entry.feature.name, t, 5) for t in range(count)]
            assert rows[:, column].tolist() == [splitmix64.row(key, salt, table.num_embeddings) for salt in salts]


@pytest.mark.parametrize("num_lookups", [1, 2])
def test_rows_are_reached_alike_and_features_and_look_ups_are_independent(num_lookups: int) -> None:
    plan = UnifiedConfig(num_lookups=num_lookups, compression_ratio=500).plan([A, B, IP])
    number = plan.tables[0].num_embeddings
    generator = torch.Generator().manual_seed(0)
    for ids in (torch.arange(200_000), torch.randint(-(2**63), 2**63 - 1, (200_000,), generator=generator)):
        looked_up = torch.cat([entry.remap.build()(ids) for entry in plan.features])
        for row in looked_up:
            assert_uniform(row, number)
        for first in range(len(looked_up)):
            for second in range(first):
                assert_uniform(looked_up[first] * number + looked_up[second], number**2)


def test_look_ups_of_a_width_have_the_rows_that_their_narrowness_pays() -> None:
    """Equal bytes: c look-ups of width d / c share c times the rows (40_000 ids in a tenth: 4_000 rows of 8)."""
    tables = [UnifiedConfig(num_lookups=c, compression_ratio=10).plan([A, B]).tables for c in (1, 2, 4)]
    assert [(t.num_embeddings, t.embedding_dim) for (t,) in tables] == [(4000, 8), (8000, 4), (16_000, 2)]


def test_unified_and_hash_differ_in_sharing_only() -> None:
    """The comparison of the paper's table 1: the same bytes, the same hash of a feature's ids, other tables."""
    unified, hashed = (config(compression_ratio=10).plan([A, B]) for config in (UnifiedConfig, HashConfig))
    assert unified.num_bytes == hashed.num_bytes
    assert [len(plan.tables) for plan in (unified, hashed)] == [1, 2]
    for first, second in zip(unified.features, hashed.features, strict=True):
        assert first.remap.params["salts"] == second.remap.params["salts"]
        assert first.combiner == second.combiner


def test_embedding_is_the_concatenation_of_its_rows() -> None:
    plan = UnifiedConfig(num_lookups=2, lookups={"b": 3}, compression_ratio=100).plan([A, B])
    collection = PlannedEmbeddingBagCollection(plan)
    reference.randomise(collection, seed=0)
    ((_, weight),) = reference.table_parameters(collection).items()
    out = collection(reference.jagged({"a": [[7]], "b": [[7]]})).values()
    rows = [row for entry in plan.features for row in entry.remap.build()(torch.tensor([7])).reshape(-1).tolist()]
    torch.testing.assert_close(out, torch.cat([weight[row] for row in rows]).unsqueeze(0))
    assert out.shape == (1, 8 + 12) and len(set(rows)) == 5


@pytest.mark.parametrize("num_lookups", [1, 2])
def test_budgets_are_met_or_the_floor_is_told(num_lookups: int) -> None:
    check_budgets(lambda ratio: UnifiedConfig(num_lookups=num_lookups, compression_ratio=ratio))


@pytest.mark.parametrize("check", CHECKS)
def test_any_int64_is_an_id_of_a_hashed_feature_and_alone_features_keep_their_rows(check: str) -> None:
    one = FeatureSpec(name="one", embedding_dim=8, num_embeddings=1)
    plan = UnifiedConfig(num_lookups=2, lookups={"ip": 3}, alone=["one"], compression_ratio=100).plan([A, one, IP])
    assert [table.name for table in plan.tables] == ["table_one", "table_unified_a"]
    CHECKS[check](plan, {"ip": [EXTREMES, []], "a": [[0], [19_999, 0]], "one": [[], [0]]})


def test_features_alone_count_in_the_floor() -> None:
    config = partial(UnifiedConfig, alone=["a"])
    with pytest.raises(ConfigError, match=f"needs {20_000 * 32 + 32:,} bytes"):
        config(compression_ratio=10).plan([A, B])
    assert config(budget_mib=(20_000 * 32 + 32) / 2**20).plan([A, B]).num_bytes == 20_000 * 32 + 32
