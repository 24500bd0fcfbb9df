"""Collisions against a count of tuples one id at a time; floors and ceilings against the budgets next to them."""

from collections import defaultdict
from dataclasses import replace

import pytest
import torch

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, TableSpec
from recsys.embeddings.collisions import Collisions, collisions, mean_share
from recsys.embeddings.full import FullConfig
from recsys.embeddings.hash import HashConfig
from recsys.embeddings.method import MethodConfig
from recsys.embeddings.min_count import MinCountConfig
from recsys.embeddings.quotient_remainder import QuotientRemainderConfig
from recsys.embeddings.robe import RobeConfig
from recsys.embeddings.survey import Bounds, survey_features, survey_method, training_bytes
from recsys.embeddings.unified import UnifiedConfig

USER = FeatureSpec(name="user", embedding_dim=10, num_embeddings=300, max_length=1, octave_counts=(90, 80, 70, 60, 50))
TYPE = FeatureSpec(name="type", embedding_dim=10, num_embeddings=7, max_length=1, octave_counts=(200, 100, 50))
FEATURES = [USER, TYPE]


def counted(plan: TablePlan, feature: FeatureSpec, *, alone: bool) -> float:
    """Share of look-ups whose rows another id reads, counted id by id."""
    readers: dict[tuple[object, ...], int] = defaultdict(int)
    for entry in plan.features:
        if entry.feature.name != feature.name and alone:
            continue
        for rows in entry.remap.build()(torch.arange(entry.feature.num_embeddings or 0)).T.tolist():
            readers[(entry.tables, tuple(rows))] += 1
    (own,) = (entry for entry in plan.features if entry.feature.name == feature.name)
    rows = own.remap.build()(torch.arange(feature.num_embeddings or 0)).T.tolist()
    colliding = total = 0.0
    for octave, count in enumerate(feature.octave_counts):
        ids = range(2**octave, min(2 ** (octave + 1), feature.num_embeddings or 0))
        shared = [readers[(own.tables, tuple(rows[number]))] > 1 for number in ids]
        colliding, total = colliding + count * sum(shared) / len(shared), total + count
    return colliding / total


@pytest.mark.parametrize(
    "config",
    [
        HashConfig(compression_ratio=3),
        UnifiedConfig(compression_ratio=2),
        UnifiedConfig(compression_ratio=4, num_lookups=2),
        QuotientRemainderConfig(compression_ratio=4),
        FullConfig(),
    ],
    ids=["hash", "unified", "two look-ups", "quotient_remainder", "full"],
)
def test_collisions_are_those_counted_one_id_at_a_time(config: MethodConfig) -> None:
    plan = config.plan(FEATURES)
    found = collisions(plan, max_ids=1000, oov_counts={})
    for feature in FEATURES:
        each = found[feature.name]
        assert each.exact
        assert each.same_feature == pytest.approx(counted(plan, feature, alone=True))
        assert each.any_feature == pytest.approx(counted(plan, feature, alone=False))


def test_one_row_for_all_is_a_collision_of_all_and_rows_of_their_own_are_none() -> None:
    plan = HashConfig(budget_mib=80 / 2**20).plan(FEATURES)  # one row each
    assert {name: each.same_feature for name, each in collisions(plan, max_ids=99, oov_counts={}).items()} == {
        "user": 1.0,
        "type": 1.0,
    }
    own = collisions(FullConfig().plan(FEATURES), max_ids=1000, oov_counts={})
    assert set(own.values()) == {Collisions(same_feature=0.0, any_feature=0.0, as_unknown=0.0, exact=True)}


def test_lookups_of_the_unseen_weigh_as_many_as_they_are() -> None:
    remap = Component("recsys.embeddings.hash.HashRemap", {"num_rows": 2, "salts": [5]})
    feature = replace(TYPE, num_embeddings=3, octave_counts=(30, 10))
    table = TableSpec(name="t", num_embeddings=2, embedding_dim=10)
    entry = FeaturePlan(
        feature=feature, tables=("t",), remap=remap, combiner=Component("recsys.embeddings.combiners.Only")
    )
    plan = TablePlan(tables=(table,), features=(entry,))
    rows = remap.build()(torch.arange(3))[0].tolist()
    look_ups = [60, 30, 10]
    share = sum(n for n, row in zip(look_ups, rows, strict=True) if rows.count(row) > 1) / 100
    assert collisions(plan, max_ids=9, oov_counts={"type": 60})["type"].same_feature == pytest.approx(share)


def test_ids_that_are_left_out_are_read_as_the_unknown_one() -> None:
    # Rows for 4 ids of each feature: of the user's look-ups those of ids 4 and on, in octaves of 70, 60 and 50.
    plan = MinCountConfig(budget_mib=8 * 40 / 2**20).plan([replace(USER, num_embeddings=32), TYPE])
    kept = {entry.feature.name: entry.remap.params.get("num_kept", 7) for entry in plan.features}
    found = collisions(plan, max_ids=99, oov_counts={"user": 10})
    for feature, counts, seen in ((USER, USER.octave_counts, 10), (TYPE, TYPE.octave_counts, 0)):
        size = 32 if feature is USER else 7
        look_ups = {i: counts[i.bit_length() - 1] / (min(2 ** i.bit_length(), size) - 2 ** (i.bit_length() - 1))
                    for i in range(1, size)}  # fmt: skip
        out = sum(count for number, count in look_ups.items() if number >= kept[feature.name])
        assert found[feature.name].as_unknown == pytest.approx(out / (sum(counts) + seen))
    hashed = replace(TYPE, num_embeddings=None)
    assert collisions(HashConfig(budget_mib=1e-4).plan([hashed]), max_ids=99, oov_counts={})["type"].as_unknown == 0.0


def test_a_sample_of_the_ids_comes_near_the_count_of_all() -> None:
    big = FeatureSpec(
        name="big",
        embedding_dim=4,
        num_embeddings=60_000,
        max_length=1,
        octave_counts=(*(1000,) * 14, 9000, 8000),
    )
    for rows in (40_000, 150_000):
        plan = HashConfig(budget_mib=rows * 16 / 2**20).plan([big])
        table = replace(plan.tables[0], num_embeddings=rows)
        remap = Component(plan.features[0].remap.target, {**plan.features[0].remap.params, "num_rows": rows})
        plan = TablePlan(tables=(table,), features=(replace(plan.features[0], remap=remap),))
        exact = collisions(plan, max_ids=60_000, oov_counts={})["big"]
        sampled = collisions(plan, max_ids=50_000, oov_counts={})["big"]
        assert exact.exact and not sampled.exact
        assert sampled.same_feature == pytest.approx(exact.same_feature, abs=0.03)


def test_hashed_keys_are_stood_for() -> None:
    hashed = replace(TYPE, num_embeddings=None, octave_counts=(50, 40, 30, 4))  # 1 + 8 + 4 ids at most
    found = collisions(HashConfig(budget_mib=10).plan([hashed]), max_ids=100, oov_counts={})["type"]
    assert found.same_feature == 0.0
    found = collisions(HashConfig(budget_mib=40 / 2**20).plan([hashed]), max_ids=100, oov_counts={})["type"]
    assert found.same_feature == 1.0


def test_a_combiner_that_reads_the_id_tells_ids_apart() -> None:
    plan = RobeConfig(budget_mib=80 / 2**20).plan(FEATURES)
    rows_alone = counted(plan, USER, alone=True)
    found = collisions(plan, max_ids=1000, oov_counts={})["user"].same_feature
    assert found is not None and found <= rows_alone


def test_planning_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    collisions(RobeConfig(compression_ratio=5).plan(FEATURES), max_ids=1000, oov_counts={})
    assert torch.equal(torch.get_rng_state(), before)


def test_mean_share_weighs_features_by_their_lookups() -> None:
    found = {
        "user": Collisions(same_feature=0.5, any_feature=1.0, as_unknown=0.0, exact=True),
        "type": Collisions(same_feature=0.0, any_feature=1.0, as_unknown=0.0, exact=True),
    }
    assert mean_share(found, FEATURES) == pytest.approx(0.5 * 350 / 700)
    unread = Collisions(same_feature=None, any_feature=None, as_unknown=None, exact=False)
    assert mean_share({"user": unread}, [USER]) is None


@pytest.mark.parametrize(
    "config", [FullConfig(), HashConfig(), UnifiedConfig(), QuotientRemainderConfig(), RobeConfig()], ids=str
)
def test_the_floor_is_accepted_and_a_byte_less_is_refused(config: MethodConfig) -> None:
    bounds = Bounds.of(config, FEATURES)
    floor = bounds.floor_bytes
    assert floor is not None
    replace(config, budget_mib=floor / 2**20).plan(FEATURES)
    with pytest.raises(ConfigError, match="needs"):
        replace(config, budget_mib=(floor - 1) / 2**20).plan(FEATURES)


def test_bounds_worked_out_by_hand() -> None:
    full = 307 * 10 * 4
    assert Bounds.of(FullConfig(), FEATURES) == Bounds(floor_bytes=full, ceiling_bytes=full)
    assert Bounds.of(HashConfig(), FEATURES) == Bounds(floor_bytes=2 * 40, ceiling_bytes=full)
    assert Bounds.of(UnifiedConfig(), FEATURES) == Bounds(floor_bytes=40, ceiling_bytes=full)
    # 300 ids need 18 + 17 rows at least, 7 ids 4 + 2.
    assert Bounds.of(QuotientRemainderConfig(), FEATURES).floor_bytes == (35 + 6) * 40


def test_hashed_features_have_no_ceiling_and_what_cannot_plan_them_no_floor() -> None:
    hashed = [replace(USER, num_embeddings=None)]
    assert Bounds.of(HashConfig(), hashed).ceiling_bytes is None
    assert Bounds.of(QuotientRemainderConfig(), hashed) == Bounds(floor_bytes=None, ceiling_bytes=None)
    found = survey_method("qr", QuotientRemainderConfig(), hashed, max_ids=9, oov_counts={})
    assert "has no vocabulary" in found.refusal and found.serving_bytes is None


def test_features_add_up_to_the_plan_and_training_is_padded() -> None:
    plan = UnifiedConfig(compression_ratio=3, alone=["type"]).plan(FEATURES)
    found = survey_features(plan, plan, max_ids=1000, oov_counts={})
    assert sum(each.serving_bytes for each in found) == plan.num_bytes
    assert sum(each.training_bytes for each in found) == training_bytes(plan) == plan.num_bytes * 12 // 10
    shared, alone = found
    assert (shared.num_sharing, shared.num_rows, shared.widths) == (1, plan.tables[-1].num_embeddings, (10,))
    assert (alone.num_ids, alone.num_rows, alone.row_types) == (7, 7, ("float32",))


def test_method_below_its_floor_says_so() -> None:
    found = survey_method("full", FullConfig(compression_ratio=2), FEATURES, max_ids=9, oov_counts={})
    assert found.floor_bytes == 12_280 and "needs 12,280 bytes" in found.refusal and found.num_tables is None
    found = survey_method("u", UnifiedConfig(compression_ratio=2), FEATURES, max_ids=999, oov_counts={})
    assert (found.refusal, found.num_tables, found.num_lookups, found.exact) == ("", 1, 2, True)
    assert found.serving_bytes == 153 * 40 and found.training_bytes == 153 * 48
