import dataclasses
import json
import math
from collections.abc import Callable, Sequence

import pytest

from recsys.core.component import Component
from recsys.core.errors import ConfigError, DataError
from recsys.core.plan import FeaturePlan, TablePlan, component_bytes
from recsys.core.specs import FeatureSpec, Init, Pooling, RowType, TableSpec
from recsys.embeddings.combiners import Concat, Only, Product
from recsys.embeddings.full import FullConfig
from recsys.embeddings.hash import HashConfig, HashRemap
from recsys.embeddings.method import Identity, MethodConfig
from recsys.embeddings.quotient_remainder import QuotientRemainderConfig
from recsys.embeddings.unified import UnifiedConfig

FEATURES = (
    FeatureSpec(name="user", embedding_dim=6, num_embeddings=100, octave_counts=(3, 2, 1)),
    FeatureSpec(name="tags", embedding_dim=6, num_embeddings=10, pooling=Pooling.MEAN, max_length=4),
    FeatureSpec(name="user__linear", embedding_dim=1, num_embeddings=100, source="user"),
)


def table(name: str, **changes: object) -> TableSpec:
    return dataclasses.replace(TableSpec(name=name, num_embeddings=8, embedding_dim=4), **changes)  # type: ignore[arg-type]


def entry(name: str, *tables: str) -> FeaturePlan:
    return FeaturePlan(
        feature=FeatureSpec(name=name, embedding_dim=4, num_embeddings=8),
        tables=tables,
        remap=Component.of(Identity),
        combiner=Component.of(Only),
    )


def all_plans() -> list[TablePlan]:
    return [
        FullConfig().plan(FEATURES),
        HashConfig(compression_ratio=3, seed=5).plan(FEATURES),
        QuotientRemainderConfig(compression_ratio=1.5).plan(FEATURES),
        UnifiedConfig(num_lookups=2, lookups={"tags": 1}).plan(FEATURES),
    ]


@pytest.mark.parametrize("plan", all_plans())
def test_json_round_trip_gives_an_equal_plan(plan: TablePlan) -> None:
    again = TablePlan.from_json(plan.to_json())
    assert again == plan
    assert again.fingerprint == plan.fingerprint
    assert again.to_json() == plan.to_json()


def test_json_holds_numbers_strings_and_lists_only() -> None:
    data = json.loads(all_plans()[1].to_json())
    assert data["features"][1]["feature"]["pooling"] == "mean"
    assert data["tables"][0]["row_type"] == "float32"


def test_salts_survive_json_to_the_last_bit() -> None:
    plan = HashConfig().plan([FeatureSpec(name=f"C{n}", embedding_dim=4, num_embeddings=9) for n in range(50)])
    salts = [e.remap.params["salts"] for e in plan.features]
    assert max(abs(salt[0]) for salt in salts) > 2**62  # would lose bits as a float
    assert [e.remap.params["salts"] for e in TablePlan.from_json(plan.to_json()).features] == salts


CHANGES: list[Callable[[TablePlan], TablePlan]] = [
    lambda p: dataclasses.replace(p, tables=(dataclasses.replace(p.tables[0], num_embeddings=99), *p.tables[1:])),
    lambda p: dataclasses.replace(p, tables=(dataclasses.replace(p.tables[0], row_type=RowType.INT8), *p.tables[1:])),
    lambda p: dataclasses.replace(p, tables=(dataclasses.replace(p.tables[0], init=Init(scale=0.1)), *p.tables[1:])),
    lambda p: p.reordered([e.feature.name for e in reversed(p.features)]),
    lambda p: dataclasses.replace(p, features=(_with_params(p.features[0], seed=1), *p.features[1:])),
]


def _with_params(old: FeaturePlan, **params: object) -> FeaturePlan:
    return dataclasses.replace(old, remap=Component(old.remap.target, {**old.remap.params, **params}))


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_any_change_changes_the_fingerprint(number: int) -> None:
    plan = all_plans()[0]
    changed = CHANGES[number](plan)
    assert changed.fingerprint != plan.fingerprint
    assert len(plan.fingerprint) == 16 and int(plan.fingerprint, 16) >= 0


# Each figure is written out: rows * width * 4 bytes, table by table. Uncompressed: 2400 + 240 + 400 = 3040 bytes.
BYTES: list[tuple[MethodConfig, Sequence[FeatureSpec], int]] = [
    (FullConfig(), FEATURES, 100 * 6 * 4 + 10 * 6 * 4 + 100 * 1 * 4),
    # a third is 1013 bytes: width 6 gets 1013 * 2640 // 3040 = 879 = 36 rows, of which user 1 + 34 * 100 // 110 = 31
    # and tags 1 + 34 * 10 // 110 = 4; width 1 gets 1013 * 400 // 3040 = 133 = 33 rows
    (HashConfig(compression_ratio=3), FEATURES, (31 + 4) * 24 + 33 * 4),
    # 30 rows: as many remainders as go, so that frequent ids differ in them: 26 take 4 + 26, 27 would take 4 + 27
    (QuotientRemainderConfig(budget_mib=720 / 2**20), FEATURES[:1], (4 + 26) * 24),
    # 21 rows: 13 remainders take 8 + 13, 14 would take 8 + 14
    (QuotientRemainderConfig(budget_mib=504 / 2**20), FEATURES[:1], (8 + 13) * 24),
    # width 6 in rows of 3: 2640 // 12 = 220; width 1 cannot be split: 400 // 4 = 100
    (UnifiedConfig(num_lookups=2), FEATURES, 220 * 12 + 100 * 4),
    # tags has 10 ids, at most full_below; user gets (1320 - 240) // 24 = 45 rows
    (HashConfig(budget_mib=1320 / 2**20, full_below=10), FEATURES[:2], 10 * 24 + 45 * 24),
]


@pytest.mark.parametrize(("config", "features", "num_bytes"), BYTES)
def test_bytes_worked_out_by_hand(config: MethodConfig, features: Sequence[FeatureSpec], num_bytes: int) -> None:
    plan = config.plan(features)
    assert (plan.num_bytes, plan.table_bytes, plan.remap_bytes, plan.combiner_bytes) == (num_bytes, num_bytes, 0, 0)
    assert sum(t.num_bytes for t in plan.tables) == num_bytes
    assert f"{num_bytes:,} bytes" in str(plan)


@pytest.mark.parametrize(
    ("row_type", "num_bytes"),
    [(RowType.FLOAT32, 7 * 10 * 4), (RowType.FLOAT16, 7 * 10 * 2), (RowType.INT8, 7 * (10 + 8))],
)
def test_bytes_of_each_row_type_do_not_count_padding(row_type: RowType, num_bytes: int) -> None:
    spec = TableSpec(name="t", num_embeddings=7, embedding_dim=10, row_type=row_type)
    assert (spec.num_bytes, spec.storage_dim) == (num_bytes, 12)


@pytest.mark.parametrize(("width", "storage"), [(1, 4), (4, 4), (5, 8), (10, 12), (16, 16)])
def test_storage_width(width: int, storage: int) -> None:
    assert TableSpec(name="t", num_embeddings=1, embedding_dim=width).storage_dim == storage


def test_shared_table_counts_once() -> None:
    plan = TablePlan(tables=(table("t"),), features=(entry("a", "t"), entry("b", "t")))
    assert plan.num_bytes == 8 * 4 * 4


def test_component_bytes_counts_parameters_and_stored_buffers(weighted_component: Component) -> None:
    # Linear(3, 5): 15 + 5 float32; a stored int64 buffer of 7; a buffer that is not stored counts nothing
    assert component_bytes(weighted_component) == 20 * 4 + 7 * 8
    assert component_bytes(Component.of(HashRemap, num_rows=10, salts=[1, 2])) == 0


def test_weights_of_combiners_count_in_the_plan(weighted_component: Component) -> None:
    weighted = dataclasses.replace(entry("a", "t"), combiner=weighted_component)
    plan = TablePlan(tables=(table("t"),), features=(weighted, entry("b", "t")))
    assert (plan.combiner_bytes, plan.num_bytes) == (136, 136 + 8 * 4 * 4)


def test_large_table_is_counted_without_allocating_it() -> None:
    plan = FullConfig().plan([FeatureSpec(name="a", embedding_dim=128, num_embeddings=10**12)])
    assert plan.num_bytes == 10**12 * 512


@pytest.mark.parametrize(
    ("tables", "features", "parts"),
    [
        (("t", "t"), (("a", "t"),), ("table", "'t'", "more than once")),
        (("t",), (("a", "t"), ("a", "t")), ("feature", "'a'", "more than once")),
        (("t", "spare"), (("a", "t"),), ("'spare'", "use ['t']")),
        (("t",), (("a", "gone"),), ("['t']", "use ['gone']")),
        ((), (("a", "gone"),), ("[]", "'gone'")),
    ],
)
def test_impossible_plan_is_refused(
    tables: tuple[str, ...], features: tuple[tuple[str, ...], ...], parts: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as error:
        TablePlan(tables=tuple(table(name) for name in tables), features=tuple(entry(*names) for names in features))
    assert all(part in str(error.value) for part in parts), error.value


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: table("t", num_embeddings=0), ("'t'", "0 rows", "1 or more")),
        (lambda: table("t", embedding_dim=0), ("'t'", "width 0", "1 or more")),
        (lambda: table("a.b"), ("'a.b'", "'.'", "Rename")),
        (lambda: table("a@b"), ("'a@b'", "'@'", "Rename")),
        (lambda: FeatureSpec(name="f", embedding_dim=0, num_embeddings=1), ("embedding_dim=0", "'f'", "1 or more")),
        (lambda: FeatureSpec(name="f", embedding_dim=1, num_embeddings=0), ("num_embeddings=0", "'f'", "1 or more")),
    ],
)
def test_impossible_spec_is_refused(make: Callable[[], object], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert all(part in str(error.value) for part in parts), error.value


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (lambda d: d.pop("tables"), ("tables", "missing")),
        (lambda d: d["tables"][0].pop("num_embeddings"), ("tables[0].num_embeddings", "missing")),
        (lambda d: d["tables"][0].update(rows=3), ("tables[0].rows=3", "no such key")),
        (lambda d: d["tables"][0].update(num_embeddings="8"), ("num_embeddings='8'", "type int")),
        (lambda d: d["tables"][0].update(row_type="int3"), ("row_type='int3'", "float16")),
        (lambda d: d["features"].pop(), ("tables", "features use")),
    ],
)
def test_damaged_json_is_refused(
    damage: Callable[[dict[str, list[dict[str, object]]]], object], parts: tuple[str, ...]
) -> None:
    data = json.loads(all_plans()[0].to_json())
    damage(data)
    with pytest.raises(DataError) as error:
        TablePlan.from_json(json.dumps(data))
    assert all(part in str(error.value) for part in parts), error.value


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
def test_text_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"TablePlan"):
        TablePlan.from_json(text)


def test_printed_plan_names_every_table_and_its_features() -> None:
    text = str(UnifiedConfig(alone=["tags"]).plan(FEATURES))
    assert (
        "table_unified_user " in text
        and "table_tags " in text
        and "tags" in text.splitlines()[2] + text.splitlines()[3]
    )
    assert len(text.splitlines()) == 2 + 3 + 1
    many = [FeatureSpec(name=f"C{n}", embedding_dim=4, num_embeddings=9) for n in range(9)]
    assert "C0, C1, C2, C3, … (9)" in str(UnifiedConfig().plan(many))


def test_reordered_keeps_everything_else() -> None:
    plan = all_plans()[0]
    assert plan.reordered([e.feature.name for e in plan.features]) == plan
    turned = plan.reordered(["tags", "user__linear", "user"])
    assert [e.feature.name for e in turned.features] == ["tags", "user__linear", "user"]
    assert turned.tables == plan.tables and set(map(id, turned.features)) == set(map(id, plan.features))


@pytest.mark.parametrize(
    ("component", "parts"),
    [
        (Component("os.system"), ("'os.system'", "below 'recsys.'")),
        (Component("recsys"), ("'recsys'", "below 'recsys.'")),
        (Component("recsys.embeddings.combiners.Onyl"), ("Onyl", "no such class", "spelling")),
        (Component("recsys.embeddings.gone.Only"), ("gone", "no such class")),
        (Component("recsys.core.specs.Init"), ("recsys.core.specs.Init", "not a torch module")),
        (Component("recsys.ops.hashing.mix64"), ("recsys.ops.hashing.mix64", "no class")),
        (Component("recsys.embeddings.hash"), ("recsys.embeddings.hash", "no class")),
        (Component("recsys.embeddings.hash.HashRemap", {"rows": 3}), ("HashRemap", "rows")),
    ],
)
def test_component_that_cannot_be_built_is_refused(component: Component, parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        component.build()
    assert all(part in str(error.value) for part in parts), error.value


def test_combiners_without_weights_build_from_their_description() -> None:
    for combiner in (Only, Concat, Product):
        assert type(Component.of(combiner).build()) is combiner


@pytest.mark.parametrize(("scale", "center"), [(-0.1, 0.0), (math.inf, 0.0), (math.nan, 0.0), (1.0, math.inf)])
def test_impossible_initial_weights_are_refused_before_training(scale: float, center: float) -> None:
    with pytest.raises(ConfigError, match=r"init: scale=.*must be finite, and scale 0 or more"):
        Init(scale=scale, center=center)
