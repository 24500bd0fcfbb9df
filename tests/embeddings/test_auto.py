"""`auto`: who owns, who shares and who is left out, worked out by hand; row types; budgets and floors."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec, RowType
from recsys.embeddings.auto import AutoConfig, KnownOrRare
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.embeddings.frozen import parts_of
from recsys.embeddings.full import FullConfig
from recsys.embeddings.method import Identity
from recsys.embeddings.pq import PqConfig
from tests.embeddings import dense_reference as reference
from tests.embeddings.met_or_refused import RATIOS, cases, check_budgets
from tests.embeddings.test_dense_parity import CHECKS, EXTREMES, KINDS, SIZES, features
from tests.embeddings.test_min_count import two_features
from tests.ops import splitmix64

INT4 = 4 // 2 + 4  # bytes of a row of 4 values


def config(num_rows: int, **options: Any) -> AutoConfig:  # noqa: ANN401
    return AutoConfig(budget_mib=num_rows * INT4 / 2**20, **{"rare_lookups": 1.0, **options})


def layout(num_rows: int, **options: Any) -> dict[str, list[int]]:  # noqa: ANN401
    """By feature: known ids, private rows, the first of them, shared rows, the first of them."""
    plan = config(num_rows, **options).plan(two_features())
    found = {}
    for entry in plan.features:
        params = entry.remap.params
        rows = params.get("rows", params)
        known = params.get("num_known", entry.feature.num_embeddings)
        first_shared, num_shared = rows["shared"]
        found[entry.feature.name] = [known, rows["num_heads"], rows["first_head"], num_shared, first_shared]
    return found


def row_type(plan: TablePlan, config: AutoConfig) -> list[RowType]:
    return [table.row_type for table in config.serving_plan(plan).tables]


def test_ids_seen_once_have_no_rows_unless_there_is_room_for_full_tables() -> None:
    # of a's 7 ids, a4 to a6 were seen once: 4 + 4 are left, and all own rows
    expected = {"a": [4, 4, 0, 1, 0], "b": [4, 4, 4, 1, 0]}
    full = 11 * 16 / INT4  # rows of INT4
    assert layout(8) == layout(9) == layout(int(full)) == expected
    assert config(int(full)).plan(two_features()).tables[0].num_embeddings == 8
    assert config(1 + int(full)).plan(two_features()) == FullConfig().plan(two_features())


def test_two_known_ids_a_row_leave_half_the_rows_private() -> None:
    # 8 known ids to 4 rows: 4 * 4 // 8 = 2 private ones, id 0 of both features
    assert layout(4) == {"a": [4, 1, 0, 2, 2], "b": [4, 1, 1, 2, 2]}
    # at most one id a row: the first 4 of all are id 0 of both, b1 with 20 look-ups, a1 with 9
    assert layout(4, ids_per_row=1) == {"a": [2, 2, 0, 1, 0], "b": [2, 2, 2, 1, 0]}


def test_rare_ids_are_left_out_unless_there_are_rows_for_them() -> None:
    # more than 4.5 look-ups: id 0 of both, a1, b1, and b2 and b3 with 5; to 4 rows, 16 // 6 = 2 private
    assert layout(4, rare_lookups=4.5) == {"a": [2, 1, 0, 2, 2], "b": [4, 1, 1, 2, 2]}
    assert layout(8, rare_lookups=4.5) == layout(8)


def test_one_row_is_the_floor() -> None:
    assert layout(1, ids_per_row=1) == {"a": [1, 0, 0, 1, 0], "b": [1, 0, 0, 1, 0]}
    with pytest.raises(ConfigError, match=rf"needs {INT4} bytes"):
        AutoConfig(budget_mib=(INT4 - 1) / 2**20).plan(two_features())


@pytest.mark.parametrize(
    ("row_bytes", "stored"),
    [(16, RowType.FLOAT32), (15, RowType.FLOAT16), (8, RowType.FLOAT16),
     (7, RowType.INT4), (2, RowType.INT4)],
)  # fmt: skip
def test_rows_are_the_widest_that_are_enough_else_the_narrowest(row_bytes: int, stored: RowType) -> None:
    method = AutoConfig(budget_mib=8 * row_bytes / 2**20)  # 8 useful ids
    plan = method.plan(two_features())
    assert row_type(plan, method) == [stored]
    assert method.serving_plan(plan).num_bytes <= 8 * row_bytes
    assert [table.row_type for table in plan.tables] == [RowType.FLOAT32], "as trained"


@pytest.mark.parametrize("row_types", [[RowType.INT8, RowType.INT4], [RowType.INT4], [RowType.FLOAT32, RowType.INT8]])
@pytest.mark.parametrize("ratio", [1.25, 4.0])
def test_rows_narrower_than_their_scale_and_bias_stay_float32(row_types: list[RowType], ratio: float) -> None:
    """A linear weight takes 9 bytes as int8 and 5 as int4, but 4 as float32; float16 takes 2."""
    linear = [replace(feature, embedding_dim=1) for feature in two_features()]
    method = AutoConfig(row_types=row_types, compression_ratio=ratio)
    assert row_type(method.plan(linear), method) == [RowType.FLOAT32]
    halves = replace(method, row_types=[RowType.FLOAT16, *row_types], compression_ratio=4.0)
    assert row_type(halves.plan(linear), halves) == [RowType.FLOAT16]


def test_rows_of_ids() -> None:
    salts = [splitmix64.salt("a", lookup, 0) for lookup in range(2)]
    rows = {"num_heads": 3, "first_head": 10, "rows_per_head": 1, "shared": [20, 100], "salts": salts}
    found = KnownOrRare(5, rows)(torch.tensor([0, 2, 3, 4, 5, 2**63 - 1])).tolist()
    assert found == [[10, 12, *(20 + splitmix64.row(key, salt, 100) for key in (3, 4)), 10, 10] for salt in salts]
    # frozen: a change makes stored checkpoints and bundles unusable
    assert found == [[10, 12, 51, 85, 10, 10], [10, 12, 111, 74, 10, 10]]


def test_ids_that_share_read_the_mean_of_two_rows_and_the_others_one() -> None:
    plan = config(4, ids_per_row=1).plan(two_features())  # 2 + 2 known ids to 4 rows
    assert [entry.tables for entry in plan.features] == [(plan.tables[0].name,)] * 2
    plan = config(4).plan(two_features())  # 8 known ids
    assert [entry.tables for entry in plan.features] == [(plan.tables[0].name,) * 2] * 2
    collection = PlannedEmbeddingBagCollection(plan)
    reference.randomise(collection, seed=0)
    (table,) = (weights.detach() for weights in reference.table_parameters(collection).values())
    found = collection(reference.jagged({"a": [[0], [1], [6]], "b": [[0], [2], [3]]}))
    shared = [2 + splitmix64.row(1, splitmix64.salt("a", lookup, 0), 2) for lookup in range(2)]
    torch.testing.assert_close(found["a"], torch.stack([table[0], table[shared].mean(0), table[0]]))
    torch.testing.assert_close(found["b"][0], table[1])


def test_frozen_rows_are_those_of_the_row_type() -> None:
    method = config(4)
    collection = PlannedEmbeddingBagCollection(method.plan(two_features()))
    (name,) = (table.name for table in collection.plan.tables)
    weights = torch.tensor([[0.0, 1.0, 2.0, 15.0], [0.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 1.0, 0.5], [1.0, 2.0, 3.0, 4.0]])
    frozen = method.freeze(parts_of(collection, {name: weights}))
    assert frozen.plan == method.serving_plan(collection.plan) and frozen.plan.num_bytes == 4 * INT4
    assert frozen.tables[name].shape == (4, INT4) and frozen.tables[name].dtype == torch.uint8
    assert frozen.tables[name][0, :2].tolist() == [0x10, 0xF2], "codes 0, 1, 2, 15, the first in the low half"


def test_kept_tables_stay_float32_whatever_they_are_called() -> None:
    tiny = FeatureSpec(name="auto_int4_x", embedding_dim=4, num_embeddings=2)
    method = AutoConfig(budget_mib=(2 * 16 + 4 * INT4) / 2**20, full_below=2)
    served = method.serving_plan(method.plan([*two_features(), tiny]))
    assert [table.row_type for table in served.tables] == [RowType.FLOAT32, RowType.INT4]


def test_hashed_feature_shares_rows_whatever_its_ids() -> None:
    hashed = FeatureSpec(name="ip", embedding_dim=4, num_embeddings=None, octave_counts=(1, 2, 4))
    plan = config(9).plan([*two_features(), hashed])
    assert plan.features[2].remap.params["num_heads"] == 0 and plan.features[2].remap.params["shared"][1] == 1
    bags = {"a": [[3, 6], [0], [5]], "b": [[3], [], [1]], "ip": [EXTREMES, [], [-1]]}
    for check in CHECKS.values():
        check(plan, bags)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row_types": []}, r"row_types=\[\]: rows must be stored somehow"),
        ({"ids_per_row": 0.5}, "ids_per_row=0.5: must be finite, 1 or more"),
        ({"ids_per_row": float("nan")}, "ids_per_row=nan"),
        ({"ids_per_row": float("inf")}, "ids_per_row=inf: must be finite"),
        ({"rare_lookups": float("inf")}, "rare_lookups=inf: must be finite"),
        ({"rare_lookups": 0.0}, "rare_lookups=0.0: must be finite, 1 or more"),
    ],
)
def test_options_outside_their_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AutoConfig(**options)


def test_budgets() -> None:
    check_budgets(lambda ratio: AutoConfig(compression_ratio=ratio, row_types=[RowType.FLOAT32]))


def test_budgets_bound_what_is_served() -> None:
    for specs in cases():
        for ratio in RATIOS:
            method = AutoConfig(compression_ratio=ratio)
            try:
                plan = method.plan(specs)
            except ConfigError as refusal:
                floor = re.search(r"needs ([\d,]+) bytes", str(refusal))
                assert floor
                enough = replace(method, compression_ratio=None, budget_mib=int(floor[1].replace(",", "")) / 2**20)
                enough.plan(specs)
            else:
                assert method.serving_plan(plan).num_bytes <= method.budget_bytes(specs), (specs, ratio)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_equal_the_dense_reference(kind: str, check: str) -> None:
    plan = AutoConfig(compression_ratio=12).plan(features(kind, width=6, linear=True))
    CHECKS[check](plan, reference.random_bags(SIZES, 9, seed=0, max_length=KINDS[kind][0]))


def without_rare_ids(num_ids: int = 600, width: int = 10) -> list[FeatureSpec]:
    """Two features, all of whose ids have a hundred look-ups."""
    counts = tuple(100 * min(2**k, num_ids - 2**k) for k in range((num_ids - 1).bit_length()))
    return [
        FeatureSpec(name=name, embedding_dim=width, num_embeddings=num_ids, max_length=1, octave_counts=counts)
        for name in ("a", "b")
    ]


def kind(config: AutoConfig, features: list[FeatureSpec]) -> str:
    """What a budget makes of them: full tables, codes, or rows."""
    plan = config.plan(features)
    served = config.serving_plan(plan)
    if plan != FullConfig().plan(features):
        return "rows"
    return "full" if served == plan else "codes"


def test_codes_are_served_where_the_narrowest_rows_are_too_wide_and_codes_lose_little() -> None:
    features = without_rare_ids()
    # full rows take 40 bytes, int4 rows 9 (4.4 times less); centroids and codes of 600 ids do until little is left
    kinds = [kind(AutoConfig(compression_ratio=ratio), features) for ratio in (1, 2, 4.4, 5, 30)]
    assert kinds == ["full", "rows", "rows", "codes", "rows"]
    assert kind(AutoConfig(compression_ratio=5, most_lost=0), features) == "rows"
    assert kind(AutoConfig(compression_ratio=5, most_lost=1e-6), features) == "rows"


def test_rare_ids_and_hashed_features_keep_rows() -> None:
    features = without_rare_ids()
    rare = [replace(feature, octave_counts=(*feature.octave_counts[:-1], 80)) for feature in features]
    assert kind(AutoConfig(compression_ratio=1.1), rare) == "rows"
    hashed = [features[0], replace(features[1], num_embeddings=None)]
    assert not any(
        entry.remap == Component.of(Identity) for entry in AutoConfig(compression_ratio=5).plan(hashed).features
    )


def test_codes_are_those_of_opq() -> None:
    features = without_rare_ids()
    auto, opq = AutoConfig(compression_ratio=5), PqConfig(compression_ratio=5, rotate=True)
    plan = auto.plan(features)
    torch.manual_seed(0)
    tables = {table.name: torch.randn(table.num_embeddings, table.embedding_dim) for table in plan.tables}
    parts = parts_of(PlannedEmbeddingBagCollection(plan), tables)
    frozen, expected = auto.freeze(parts), opq.freeze(parts)
    assert frozen.plan == expected.plan == auto.serving_plan(plan)
    assert frozen.plan.num_bytes <= auto.budget_bytes(features)
    assert all(torch.equal(frozen.tables[name], table) for name, table in expected.tables.items())


def test_features_kept_full_stay_so_beside_codes() -> None:
    small = FeatureSpec(name="c", embedding_dim=10, num_embeddings=8, max_length=1, octave_counts=(100, 200, 400))
    features = [*without_rare_ids(), small]
    auto = AutoConfig(compression_ratio=5, full_below=8)
    served = auto.serving_plan(auto.plan(features))
    assert [entry.remap == Component.of(Identity) for entry in served.features] == [False, False, True]


def test_what_stays_full_has_no_say_over_the_others() -> None:
    alone = without_rare_ids()
    kept = FeatureSpec(name="c", embedding_dim=10, num_embeddings=300, max_length=1, octave_counts=(10_000,) * 9)
    for ratio, expected in ((2, "rows"), (5, "codes")):  # of the budget beside the 12,000 bytes that are kept
        budget = AutoConfig(compression_ratio=ratio).budget_bytes(alone)
        auto = AutoConfig(budget_mib=(12_000 + budget) / 2**20, full_below=300)
        rest = auto.serving_plan(auto.plan([*alone, kept])).of(["a", "b"])
        assert rest == AutoConfig(compression_ratio=ratio).serving_plan(AutoConfig(compression_ratio=ratio).plan(alone))
        assert kind(AutoConfig(compression_ratio=ratio), alone) == expected


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_impossible_shares_are_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="most_lost"):
        AutoConfig(most_lost=share)
