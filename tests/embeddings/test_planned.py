"""Plans that come from a file: the same tables as planned, and every part that does not fit named before it is used."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recsys.core.component import Component
from recsys.core.errors import ConfigError, DataError
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec, Init, Pooling, RowType, TableSpec
from recsys.embeddings.adapt_emb import HeadOrHash
from recsys.embeddings.collection import PlannedEmbeddingBagCollection, PlannedEmbeddingCollection
from recsys.embeddings.combiners import Concat, Only, Product
from recsys.embeddings.full import FullConfig
from recsys.embeddings.hash import HashConfig, HashRemap
from recsys.embeddings.method import Identity
from recsys.embeddings.planned import PlanFileConfig, write_plan
from recsys.embeddings.quotient_remainder import QuotientRemainderConfig, QuotientRemainderRemap
from recsys.embeddings.row_type import RowTypeConfig
from recsys.embeddings.unified import UnifiedConfig

FEATURES = [
    FeatureSpec(name="a", embedding_dim=8, num_embeddings=100, max_length=1, octave_counts=(5, 2)),
    FeatureSpec(name="tags", embedding_dim=8, num_embeddings=50, pooling=Pooling.MEAN, max_length=4),
    FeatureSpec(name="ip", embedding_dim=8, num_embeddings=None, octave_counts=(1, 2, 3), max_length=1),
    FeatureSpec(name="a__linear", embedding_dim=1, num_embeddings=100, source="a", max_length=1),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_text(UnifiedConfig(num_lookups=2, compression_ratio=3).plan(FEATURES).to_json())
    return path


def test_the_plan_of_a_file_is_used_as_it_is(file: Path) -> None:
    planned = TablePlan.from_json(file.read_text())
    assert PlanFileConfig(path=str(file)).plan(FEATURES) == planned
    turned = PlanFileConfig(path=str(file)).plan(FEATURES[::-1])
    assert turned == planned.reordered([feature.name for feature in FEATURES[::-1]])
    PlannedEmbeddingBagCollection(turned)


def test_widths_and_counts_are_those_of_the_file(file: Path) -> None:
    asked = [replace(feature, embedding_dim=3, octave_counts=()) for feature in FEATURES]
    plan = PlanFileConfig(path=str(file)).plan(asked)
    assert [entry.feature.embedding_dim for entry in plan.features] == [8, 8, 8, 1]


def test_a_budget_checks_the_plan(file: Path) -> None:
    needed = TablePlan.from_json(file.read_text()).num_bytes
    PlanFileConfig(path=str(file), budget_mib=needed / 2**20).plan(FEATURES)
    with pytest.raises(ConfigError, match=rf"plan needs {needed:,} bytes"):
        PlanFileConfig(path=str(file), budget_mib=(needed - 1) / 2**20).plan(FEATURES)


@pytest.mark.parametrize(
    ("features", "parts"),
    [
        (FEATURES[:3], ("lacks feature(s) []", "['a__linear']")),
        ([*FEATURES, replace(FEATURES[0], name="b")], ("lacks feature(s) ['b']", "has []")),
        ([*FEATURES[:3], replace(FEATURES[3], source="tags")], ("source='a'", "source='tags'")),
        ([replace(FEATURES[0], num_embeddings=101), *FEATURES[1:]], ("num_embeddings=100", "num_embeddings=101")),
        ([replace(FEATURES[0], max_length=2), *FEATURES[1:]], ("max_length=1", "max_length=2")),
    ],
)
def test_other_features_are_refused(file: Path, features: list[FeatureSpec], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        PlanFileConfig(path=str(file)).plan(features)
    assert all(part in str(error.value) for part in (str(file), *parts)), error.value


def test_what_is_no_plan_is_refused(tmp_path: Path, file: Path) -> None:
    with pytest.raises(ConfigError, match=r"path=.*absent.json: cannot be read.*plan.json of a run"):
        PlanFileConfig(path=str(tmp_path / "absent.json")).plan(FEATURES)
    file.write_text(file.read_text()[:-9])
    with pytest.raises(DataError, match=r"path=.*plan.json: this is not the JSON text of a TablePlan"):
        PlanFileConfig(path=str(file)).plan(FEATURES)


def test_what_a_file_decides_cannot_be_set_beside_it(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"full_below=1 is not used here: the tables are planned already"):
        PlanFileConfig(path="plan.json", full_below=1)
    with pytest.raises(ConfigError, match=r"init=.* is not used here, and no table of .*plan.json has it: the tables"):
        PlanFileConfig(path=str(file), init=Init(scale=1)).plan(FEATURES)


def test_an_experiment_may_set_what_the_plan_was_made_with(tmp_path: Path) -> None:
    """Else a plan searched within an experiment could not be trained within it."""
    init = Init(scale=0.25)
    plan = HashConfig(init=init, budget_mib=0.01).plan(FEATURES)
    (tmp_path / "plan.json").write_text(plan.to_json())
    assert PlanFileConfig(path=str(tmp_path / "plan.json"), init=init).plan(FEATURES) == plan


def one(remap: Component, *tables: tuple[int, int], combiner: type = Only, width: int = 8) -> TablePlan:
    """A plan of one feature with 100 ids, by hand."""
    specs = tuple(TableSpec(name=f"t{i}", num_embeddings=n, embedding_dim=d) for i, (n, d) in enumerate(tables))
    entry = FeaturePlan(
        feature=FeatureSpec(name="user", embedding_dim=width, num_embeddings=100),
        tables=tuple(spec.name for spec in specs),
        remap=remap,
        combiner=Component.of(combiner),
    )
    return TablePlan(tables=specs, features=(entry,))


HASHED = Component.of(HashRemap, num_rows=40, salts=[1, 2])
NEGATIVE = Component.of(HeadOrHash, num_private=8, first_private=-3, num_shared=20, first_shared=8, salt=1)
NEGATIVE_TAIL = Component.of(HeadOrHash, num_private=8, first_private=1, num_shared=10, first_shared=-1, salt=1)
QUOTIENT = Component.of(QuotientRemainderRemap, num_remainders=10)
MISFITS: dict[str, tuple[Callable[[], TablePlan], tuple[str, ...]]] = {
    "fewer tables": (lambda: one(HASHED, (40, 8)), ("lists 1 table(s)", "HashRemap gives rows of shape (2, 100)")),
    "more tables": (lambda: one(Component.of(Identity), (100, 8), (100, 8)), ("lists 2 table(s)", "(1, 100)")),
    "rows of a hash": (lambda: one(HASHED, (40, 4), (39, 4), combiner=Concat), ("row 39", "'t1'", "num_embeddings=39")),
    "ids": (lambda: one(Component.of(Identity), (99, 8)), ("look-up 0", "row 99", "num_embeddings=99")),
    "quotients": (lambda: one(QUOTIENT, (9, 8), (10, 8), combiner=Product), ("row 9", "'t0'", "num_embeddings=9")),
    "remainders": (lambda: one(QUOTIENT, (10, 8), (9, 8), combiner=Product), ("row 9", "'t1'", "num_embeddings=9")),
    "negative rows": (lambda: one(NEGATIVE, (40, 8)), ("look-up 0", "row -3", "rows count from 0", "HeadOrHash")),
    "rows of one id in a hundred": (lambda: one(NEGATIVE_TAIL, (80, 8)), ("row -1", "rows count from 0")),
    "width": (lambda: one(HASHED, (40, 4), (40, 3), combiner=Concat), ("embedding_dim=8", "makes 7", "[4, 3]")),
    "widths apart": (lambda: one(QUOTIENT, (10, 8), (10, 4), combiner=Product), ("Product cannot join", "[8, 4]")),
}


EDITS: dict[str, tuple[str, object]] = {
    "no rows to hash to": ("num_rows", 0),
    "fewer than no rows": ("num_rows", -40),
    "a number in words": ("num_rows", "many"),
    "nothing": ("salts", None),
    "more than 64 bits": ("salts", [2**70]),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_file_edited_to_nonsense_is_refused_with_its_path_and_the_feature(tmp_path: Path, edit: str) -> None:
    key, value = EDITS[edit]
    file = tmp_path / "plan.json"
    plan = HashConfig(compression_ratio=3).plan(FEATURES[:1])
    values = json.loads(plan.to_json())
    values["features"][0]["remap"]["params"][key] = value
    file.write_text(json.dumps(values))
    with pytest.raises(DataError, match=rf"path={file}.*'a'") as refused:
        PlanFileConfig(path=str(file)).plan(FEATURES[:1])
    assert "HashRemap" in str(refused.value)


def test_a_part_that_is_no_remap_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    values = json.loads(FullConfig().plan(FEATURES[:1]).to_json())
    values["features"][0]["remap"]["target"] = "recsys.embeddings.combiners.Sum"
    file.write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"'a' cannot be embedded by .*not a remap and a combiner"):
        PlanFileConfig(path=str(file)).plan(FEATURES[:1])


@pytest.mark.parametrize("kind", [PlannedEmbeddingBagCollection, PlannedEmbeddingCollection])
@pytest.mark.parametrize("misfit", MISFITS)
def test_parts_that_do_not_fit_are_named_when_the_collection_is_built(kind: Callable[..., object], misfit: str) -> None:
    make, parts = MISFITS[misfit]
    with pytest.raises(ConfigError) as error:
        kind(make())
    assert all(part in str(error.value) for part in ("'user'", *parts)), error.value


@pytest.mark.parametrize("method", [FullConfig(), HashConfig(compression_ratio=3), QuotientRemainderConfig()])
def test_fitting_parts_pass_on_the_meta_device(method: FullConfig | HashConfig | QuotientRemainderConfig) -> None:
    plan = method.plan(FEATURES[:2])
    PlannedEmbeddingBagCollection(plan, device=torch.device("meta"))
    with torch.device("meta"):
        PlannedEmbeddingBagCollection(plan)
    with pytest.raises(ConfigError, match="num_embeddings=39"), torch.device("meta"):
        PlannedEmbeddingBagCollection(MISFITS["rows of a hash"][0]())


def test_the_method_that_made_a_plan_acts_and_freezes(tmp_path: Path) -> None:
    """A plan of rows that are served narrow would else be served wide, and one of codebooks never be trained."""
    known = [feature for feature in FEATURES if feature.num_embeddings is not None]
    values = {"_target_": "recsys.embeddings.row_type.RowTypeConfig", "row_type": "int8"}
    made = RowTypeConfig(row_type=RowType.INT8)
    write_plan(tmp_path, made.plan(known), values)
    config = PlanFileConfig(path=str(tmp_path / "plan.json"))
    plan = config.plan(known)
    assert config.serving_plan(plan) == made.serving_plan(plan) != plan
    assert [path.name for path in config.files()] == ["plan.json", "method.json"]
    assert {type(c) for c in config.callbacks(plan)} == {type(c) for c in made.callbacks(plan)}
    (tmp_path / "method.json").write_text("{")
    with pytest.raises(DataError, match=r"method\.json: not valid JSON"):
        PlanFileConfig(path=str(tmp_path / "plan.json")).serving_plan(plan)
    (tmp_path / "method.json").unlink()
    assert PlanFileConfig(path=str(tmp_path / "plan.json")).serving_plan(plan) == plan
