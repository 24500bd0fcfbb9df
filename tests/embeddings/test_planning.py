import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.core.specs import Distribution, FeatureSpec, Init
from recsys.embeddings.collection import PlannedEmbeddingBagCollection, parts_in
from recsys.embeddings.full import FullConfig
from recsys.embeddings.hash import HashConfig
from recsys.embeddings.method import MethodConfig
from recsys.embeddings.mixed import Assignment, MixedConfig
from recsys.embeddings.quotient_remainder import Combine, QuotientRemainderConfig
from recsys.embeddings.unified import UnifiedConfig
from tests.embeddings import dense_reference as reference
from tests.ops import splitmix64

SIZES = {"a": 10_000, "b": 700, "c": 3, "d": 1, "e": 100_000}
METHODS: list[type[MethodConfig]] = [FullConfig, HashConfig, QuotientRemainderConfig, UnifiedConfig]


def specs(width: int = 8, *, linear: bool = False) -> list[FeatureSpec]:
    found = [FeatureSpec(name=name, embedding_dim=width, num_embeddings=size) for name, size in SIZES.items()]
    return found + [replace(f, name=f"{f.name}__linear", embedding_dim=1) for f in found] if linear else found


def uncompressed(features: Sequence[FeatureSpec]) -> int:
    return sum((f.num_embeddings or 0) * f.embedding_dim * 4 for f in features)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("ratio", [1.0, 1.5, 5.0, 20.0, 60.0])
@pytest.mark.parametrize("method", METHODS[1:])
def test_budget_is_met_and_not_wasted(method: type[MethodConfig], ratio: float, linear: bool) -> None:
    features = specs(linear=linear)
    budget = uncompressed(features) / ratio
    plan = method(compression_ratio=ratio).plan(features)
    assert plan.num_bytes <= budget
    # quotient-remainder has one number of remainders for all features, so its steps are coarse
    assert plan.num_bytes >= budget * (0.6 if method is QuotientRemainderConfig else 0.99)
    assert method(budget_mib=budget / 2**20).plan(features).num_bytes == plan.num_bytes


def test_full_takes_the_bytes_of_its_tables_and_a_budget_only_checks() -> None:
    needed = uncompressed(specs())
    assert FullConfig().plan(specs()).num_bytes == needed
    assert FullConfig(budget_mib=needed / 2**20).plan(specs()).num_bytes == needed
    with pytest.raises(ConfigError, match=rf"full needs {needed:,} bytes.*budget of {needed - 1:,}"):
        FullConfig(budget_mib=(needed - 1) / 2**20).plan(specs())


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("method", [FullConfig, HashConfig, QuotientRemainderConfig, UnifiedConfig])
def test_budget_below_the_floor_names_one_that_will_do(method: type[MethodConfig], linear: bool) -> None:
    with pytest.raises(ConfigError) as error:
        method(compression_ratio=1e6).plan(specs(linear=linear))
    message = str(error.value)
    assert f"{method().label} needs" in message and "compression_ratio=1000000.0" in message
    advised = float(message.split("Raise the budget to ")[1].split(" MiB")[0])
    method(budget_mib=advised).plan(specs(linear=linear))


def test_floor_of_quotient_remainder_is_about_two_square_roots() -> None:
    feature = [FeatureSpec(name="a", embedding_dim=1, num_embeddings=10_000)]
    floor = 200 * 4
    assert QuotientRemainderConfig(budget_mib=floor / 2**20).plan(feature).num_bytes == floor
    with pytest.raises(ConfigError, match=r"needs 800 bytes, above the budget of 799"):
        QuotientRemainderConfig(budget_mib=(floor - 1) / 2**20).plan(feature)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 12, 35, 36, 37, 101])
def test_quotient_remainder_gives_distinct_pairs_within_its_tables_at_every_budget(size: int) -> None:
    feature = FeatureSpec(name="a", embedding_dim=1, num_embeddings=size)
    for rows in range(1, size + 1):
        try:
            plan = QuotientRemainderConfig(budget_mib=rows * 4 / 2**20).plan([feature])
        except ConfigError:
            continue
        assert sum(table.num_embeddings for table in plan.tables) <= rows
        pairs = plan.features[0].remap.build()(torch.arange(size))
        assert len(set(map(tuple, pairs.T.tolist()))) == size
        for name, used in zip(plan.features[0].tables, pairs, strict=True):
            assert int(used.min()) >= 0 and int(used.max()) < plan.table(name).num_embeddings


def test_features_that_would_not_shrink_keep_full_tables() -> None:
    plan = QuotientRemainderConfig(compression_ratio=20).plan(specs())
    assert [len(entry.tables) for entry in plan.features] == [2, 2, 1, 1, 2]


@pytest.mark.parametrize("method", METHODS[1:])
def test_small_vocabularies_stay_full_under_every_method(method: type[MethodConfig]) -> None:
    plan = method(compression_ratio=5, full_below=700).plan(specs())
    kept = {entry.feature.name for entry in plan.features if entry.remap.target.endswith("Identity")}
    assert kept == {"b", "c", "d"}
    assert plan.table("table_b").num_embeddings == 700


def test_hash_splits_rows_in_proportion_to_vocabularies() -> None:
    plan = HashConfig(compression_ratio=10).plan(specs())
    rows = [plan.table(f"table_{name}").num_embeddings for name in "abe"]
    assert rows == [1000, 70, 9996]  # 1 + (11_070 - 5) * vocabulary // 110_704
    assert plan.table("table_d").num_embeddings == 1  # never no row at all


def test_salts_are_those_of_the_name_the_lookup_and_the_seed() -> None:
    plan = UnifiedConfig(num_lookups=4, seed=9).plan(specs())
    for entry in plan.features:
        assert entry.remap.params["salts"] == [splitmix64.salt(entry.feature.name, t, 9) for t in range(4)]
    assert HashConfig(seed=1).plan(specs()).features[0].remap.params["salts"] == [splitmix64.salt("a", 0, 1)]


@pytest.mark.parametrize("config", [HashConfig(compression_ratio=7), UnifiedConfig(num_lookups=2)])
def test_planning_is_deterministic_and_rows_do_not_depend_on_the_order_of_features(config: MethodConfig) -> None:
    plan = config.plan(specs(linear=True))
    assert config.plan(specs(linear=True)).fingerprint == plan.fingerprint
    turned = config.plan(specs(linear=True)[::-1])
    assert [e.feature.name for e in turned.features] == [e.feature.name for e in plan.features][::-1]
    assert {e.feature.name: e.remap for e in turned.features} == {e.feature.name: e.remap for e in plan.features}
    alone = config.plan(specs()[:1])
    assert alone.features[0].remap.params["salts"] == plan.features[0].remap.params["salts"]


def test_unified_shares_one_table_and_lookups_set_the_width() -> None:
    plan = UnifiedConfig(num_lookups=2, lookups={"a": 1, "b": 5}, alone=["c"], compression_ratio=3).plan(specs())
    widths = {entry.feature.name: entry.feature.embedding_dim for entry in plan.features}
    assert widths == {"a": 4, "b": 20, "c": 8, "d": 8, "e": 8}
    assert {entry.feature.name: len(entry.tables) for entry in plan.features} == {
        "a": 1,
        "b": 5,
        "c": 1,
        "d": 2,
        "e": 2,
    }
    assert {table.name: table.embedding_dim for table in plan.tables} == {"table_c": 8, "table_unified_a": 4}
    out = PlannedEmbeddingBagCollection(plan)(reference.jagged({name: [[0], [0]] for name in SIZES}))
    assert out.length_per_key() == [4, 20, 8, 8, 8] and out.values().shape == (2, 48)


def test_unified_leaves_room_for_the_features_that_stay_alone() -> None:
    budget = uncompressed(specs()) // 5
    plan = UnifiedConfig(alone=["b"], budget_mib=budget / 2**20).plan(specs())
    assert budget - 8 * 4 < plan.num_bytes <= budget


def test_alone_may_name_a_column() -> None:
    plan = UnifiedConfig(alone=["a"]).plan(
        [*specs()[:2], FeatureSpec(name="a__linear", embedding_dim=1, num_embeddings=10_000, source="a")]
    )
    assert [entry.tables for entry in plan.features] == [("table_a",), ("table_unified_b",), ("table_a__linear",)]


def test_hashed_features_get_rows_for_the_keys_seen() -> None:
    spec = FeatureSpec(name="ip", embedding_dim=8, num_embeddings=None, octave_counts=(1, 2, 4))
    assert HashConfig().plan([spec]).tables[0].num_embeddings == 8
    assert HashConfig(full_below=10**9).plan([spec]).tables[0].num_embeddings == 8


@pytest.mark.parametrize("share", [1000, 2, 1.01, 1.0, 0.99])
def test_hash_gives_no_vocabulary_more_rows_than_ids(share: float) -> None:
    plan = HashConfig(budget_mib=share * uncompressed(specs(linear=True)) / 2**20).plan(specs(linear=True))
    for entry in plan.features:
        assert plan.table(entry.tables[0]).num_embeddings <= (entry.feature.num_embeddings or 0)
    if share > 1:
        assert plan.num_bytes == uncompressed(specs(linear=True))
    one = FeatureSpec(name="a", embedding_dim=4, num_embeddings=1000)
    assert HashConfig(budget_mib=1).plan([one]).tables[0].num_embeddings == 1000
    assert HashConfig(budget_mib=1).plan([replace(HASHED, embedding_dim=4)]).tables[0].num_embeddings == 2**16


def test_unified_has_no_more_rows_than_there_is_to_look_up() -> None:
    ids = sum(SIZES.values())
    assert UnifiedConfig(budget_mib=64).plan(specs()).tables[0].num_embeddings == ids
    assert UnifiedConfig(budget_mib=64, num_lookups=2).plan(specs()).tables[0].num_embeddings == 2 * ids
    more = UnifiedConfig(budget_mib=64, num_lookups=2, lookups={"a": 1, "b": 5}).plan(specs())
    assert more.tables[0].num_embeddings == 2 * ids - 10_000 + 3 * 700
    with_hashed = UnifiedConfig(budget_mib=64).plan([*specs(), HASHED])
    assert with_hashed.num_bytes == 64 * 2**20, "keys without a vocabulary may be any number"


HASHED = FeatureSpec(name="ip", embedding_dim=8, num_embeddings=None, octave_counts=(1, 2, 4))
REFUSED: list[tuple[Callable[[], TablePlan], tuple[str, ...]]] = [
    (lambda: FullConfig().plan([HASHED]), ("'ip'", "no vocabulary", "Set embedding to one of", "dhe", "unified")),
    (lambda: QuotientRemainderConfig().plan([HASHED]), ("'ip'", "no vocabulary", "hash")),
    (lambda: UnifiedConfig(alone=["ip"]).plan([HASHED]), ("'ip'", "no vocabulary")),
    (lambda: FullConfig().plan([]), ("no categorical feature", "schema")),
    (lambda: FullConfig(budget_mib=1, compression_ratio=2).plan(specs()), ("both set", "Set one")),
    (lambda: HashConfig(budget_mib=0).plan(specs()), ("budget_mib=0", "above 0")),
    (lambda: HashConfig(compression_ratio=-2).plan(specs()), ("compression_ratio=-2", "above 0")),
    (lambda: HashConfig(budget_mib=math.inf).plan(specs()), ("budget_mib=inf", "finite")),
    (lambda: HashConfig(compression_ratio=math.inf).plan(specs()), ("compression_ratio=inf", "finite")),
    (lambda: HashConfig(compression_ratio=0.1).plan(specs()), ("compression_ratio=0.1", "10 makes", "set budget_mib")),
    (lambda: HashConfig(full_below=-5).plan(specs()), ("full_below=-5", "0 or more")),
    (lambda: UnifiedConfig(num_lookups=3).plan(specs()), ("num_lookups=3", "width 8", "divisor")),
    (lambda: UnifiedConfig(num_lookups=0).plan(specs()), ("'num_lookups'=0", "1 or more")),
    (lambda: UnifiedConfig(lookups={"a": 0}).plan(specs()), ("'a'=0", "1 or more")),
    (lambda: UnifiedConfig(lookups={"z": 1}).plan(specs()), ("lookups", "['z']", "'a', 'b'")),
    (
        lambda: UnifiedConfig(lookups={"a": 2, "b": 2}, alone=["a"]).plan(specs()),
        ("lookups names ['a']", "alone=['a']"),
    ),
    (lambda: UnifiedConfig(lookups={"a": 2, "b": 2}, full_below=700).plan(specs()), ("['b']", "full_below=700")),
    (
        lambda: UnifiedConfig(lookups={"a": 2}).plan([replace(specs(1)[0], name="a__linear", source="a")]),
        ("lookups names ['a']", "only another feature reads", "['a__linear']"),
    ),
    (lambda: MixedConfig(default=FullConfig(), full_below=3).plan(specs()), ("full_below=3", "not used", "`default`")),
    (lambda: MixedConfig(default=FullConfig(), init=Init(scale=1)).plan(specs()), ("init=", "not used", "`default`")),
    (lambda: UnifiedConfig(alone=["z"]).plan(specs()), ("alone", "['z']", "'a', 'b'")),
    (
        lambda: MixedConfig(default=FullConfig(), assignments=[Assignment(features=["z"], method=HashConfig())]).plan(
            specs()
        ),
        ("assignments[0].features", "['z']", "'a', 'b'"),
    ),
    (lambda: MixedConfig(default=FullConfig(), compression_ratio=2).plan(specs()), ("mixed needs", "budget of")),
]


@pytest.mark.parametrize(("make", "parts"), REFUSED)
def test_impossible_method_is_refused(make: Callable[[], TablePlan], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert all(part in str(error.value) for part in parts), error.value


def test_mixed_gives_each_feature_its_method_and_keeps_the_order() -> None:
    config = MixedConfig(
        default=FullConfig(),
        assignments=[
            Assignment(features=["e", "c"], method=UnifiedConfig(compression_ratio=50)),
            Assignment(features=["a", "e"], method=QuotientRemainderConfig(compression_ratio=10)),
        ],
        compression_ratio=5,
    )
    plan = config.plan(specs())
    assert [entry.feature.name for entry in plan.features] == list(SIZES)
    kinds = [entry.remap.target.rpartition(".")[2] for entry in plan.features]
    assert kinds == ["QuotientRemainderRemap", "Identity", "HashRemap", "Identity", "HashRemap"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "init",
    [Init(scale=0.02), Init(distribution=Distribution.UNIFORM, scale=0.05, center=0.3), Init(scale=0.1, center=-1.0)],
)
def test_initial_weights_have_the_stated_mean_and_spread(method: type[MethodConfig], init: Init) -> None:
    torch.manual_seed(0)
    plan = method(init=init).plan([FeatureSpec(name="a", embedding_dim=10, num_embeddings=20_000)])
    weight = reference.table_parameters(PlannedEmbeddingBagCollection(plan))[plan.tables[0].name].detach()
    real, padding = weight[:, :10], weight[:, 10:]
    deviation = init.scale / math.sqrt(3) if init.distribution is Distribution.UNIFORM else init.scale
    assert real.mean().item() == pytest.approx(init.center, abs=5 * deviation / math.sqrt(real.numel()))
    assert real.std().item() == pytest.approx(deviation, rel=0.02)
    if init.distribution is Distribution.UNIFORM:
        assert (real - init.center).abs().max().item() <= init.scale * 1.0001
    assert padding.shape[1] == 2 and not padding.any()


def test_default_initial_weights_are_those_of_the_papers() -> None:
    assert FullConfig().init == Init(distribution=Distribution.NORMAL, scale=1e-4)
    assert UnifiedConfig().init == Init(distribution=Distribution.UNIFORM, scale=0.05)


@pytest.mark.parametrize("combine", Combine)
@pytest.mark.parametrize("size", [100, 100_000])
def test_composed_embeddings_start_at_the_scale_of_full_ones(combine: Combine, size: int) -> None:
    """Two factors of N(0, 1e-4) would compose to a spread of 1e-8; U(sqrt(1/n), 1) keeps 0.58 or more of it."""
    torch.manual_seed(0)
    plan = QuotientRemainderConfig(compression_ratio=3, combine=combine).plan(
        [FeatureSpec(name="a", embedding_dim=64, num_embeddings=size)]
    )
    assert len(plan.tables) == 2
    embedded = PlannedEmbeddingBagCollection(plan)(reference.jagged({"a": [[i] for i in range(0, size, size // 100)]}))
    assert 0.5e-4 < embedded.values().std().item() < 1.5e-4
    assert abs(embedded.values().mean().item()) < 2e-5


def test_factor_beside_the_largest_table_is_what_the_published_code_ran() -> None:
    plan = QuotientRemainderConfig(compression_ratio=10).plan(
        [FeatureSpec(name="a", embedding_dim=64, num_embeddings=10_000)]
    )
    weight = reference.table_parameters(PlannedEmbeddingBagCollection(plan))["table_a_quotient"]
    assert 0.01 <= weight.min().item() < 0.03 and 0.97 < weight.max().item() <= 1.0


def test_padded_columns_do_not_reach_the_output_or_the_parts_that_export_freezes() -> None:
    plan = QuotientRemainderConfig(compression_ratio=2).plan(specs(width=10))
    collection = PlannedEmbeddingBagCollection(plan)
    parts = parts_in(collection)
    assert set(parts) == set(SIZES)
    for remap, combiner in parts.values():
        assert type(combiner).__name__ in {"Only", "Product"}
        assert remap(torch.tensor([0])).shape[1] == 1
    assert {w.shape[1] for w in reference.table_parameters(collection).values()} == {12}
    assert collection(reference.jagged({name: [[0]] for name in SIZES})).values().shape == (1, 50)
