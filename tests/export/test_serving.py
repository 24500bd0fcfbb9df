"""Exported models against row-by-row indexing of the trained tables, and against what stock libtorch can run."""

import copy
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from recsys.core.errors import CheckpointError, ParityError
from recsys.core.specs import Pooling, RowType
from recsys.export.bundle import FrozenModel, build_serving_model, export_model
from recsys.export.narrow import narrow
from recsys.export.script import load_scripted, operator_kinds, script_model
from tests.export.world import METHODS, NUM_IDS, TinyHead, make_features, make_trained, reference_logits


# Sums of a few float32 values in another order; relative to the logits' scale of about 1.
def assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


KEYS = [0, *range(100, 100 + NUM_IDS), -5, 2**62]
BAGS = [[], [101], [102, 102], [999, 103], [106, 105, 104, 101], [], [0]]
# every known key, keys below, between and above them; every bag beside every key
EXHAUSTIVE = list(itertools.product(KEYS, BAGS))


@pytest.fixture(scope="module")
def features() -> dict[str, Tensor]:
    return make_features([key for key, _ in EXHAUSTIVE], [bag for _, bag in EXHAUSTIVE])


@pytest.mark.parametrize("pooling", [Pooling.SUM, Pooling.MEAN])
@pytest.mark.parametrize("method", METHODS)
def test_scripted_float_model_equals_indexing(method: str, pooling: Pooling, features: dict[str, Tensor]) -> None:
    trained = make_trained(method, pooling=pooling)
    scripted = script_model(build_serving_model(trained, RowType.FLOAT32)[1])
    logits, probabilities = scripted(features)
    expected = reference_logits(trained, features)
    assert_same(logits, expected)
    assert_same(probabilities, torch.sigmoid(expected))
    assert {kind.split("::")[0] for kind in operator_kinds(scripted)} <= {"aten", "prim"}


@pytest.mark.parametrize("width", [1, 3, 4, 16])
@pytest.mark.parametrize("method", ["full", "qr_product", "unified"])
def test_int8_model_stays_within_the_rounding_of_its_rows(method: str, width: int, features: dict[str, Tensor]) -> None:
    """Equal to a float model whose tables are the dequantized rows; those err by half of 1/255 of a row's range."""
    trained = make_trained(method, width=width)
    narrowed = narrow(trained.parts, RowType.INT8)
    plan, packed = narrowed.plan, narrowed.tables
    rounded = {}
    for name, table in trained.parts.tables.items():
        if plan.table(name).row_type is RowType.FLOAT32:
            rounded[name] = packed[name]
            continue
        rounded[name] = torch.ops.quantized.embedding_bag_byte_unpack(packed[name])
        step = (table.amax(1, keepdim=True) - table.amin(1, keepdim=True)) / 255
        assert ((rounded[name] - table).abs() <= step / 2 + 1e-6).all()
    trained_on_rounded = copy.copy(trained)
    object.__setattr__(trained_on_rounded, "parts", replace(trained.parts, tables=rounded))
    logits, _ = script_model(build_serving_model(trained, RowType.INT8)[1])(features)
    torch.testing.assert_close(logits, reference_logits(trained_on_rounded, features), rtol=1e-5, atol=1e-5)


def test_int8_logits_of_a_linear_model_stay_within_the_stated_bound(features: dict[str, Tensor]) -> None:
    """|logit error| <= sum over looked-up values of |weight| * (row range) / 255 / 2."""
    trained = make_trained("full")
    head = trained.head
    assert isinstance(head, TinyHead)
    assert head.norm.running_var is not None
    weight = (head.layer.weight[0] * head.norm.weight / (head.norm.running_var + head.norm.eps).sqrt()).abs()
    scale = {name: (table.amax(1) - table.amin(1)).max().item() / 510 for name, table in trained.parts.tables.items()}
    per_id = weight[2:6].sum() * scale["a"], weight[6:10].sum() * scale["tags"]
    bound = per_id[0] + per_id[1] * features["tags__lengths"] + 1e-5
    logits, _ = script_model(build_serving_model(trained, RowType.INT8)[1])(features)
    assert ((logits - reference_logits(trained, features)).abs() <= bound).all()


@pytest.mark.parametrize("method", ["full", "qr_product", "unified"])
@pytest.mark.parametrize("row_type", list(RowType))
def test_batches_of_any_size_score_alike(method: str, row_type: RowType) -> None:
    trained = make_trained(method, pooling=Pooling.MEAN)
    scripted = script_model(build_serving_model(trained, row_type)[1])
    assert scripted(make_features([], []))[0].shape == (0,)
    one_by_one = [scripted(make_features([key], [bag])) for key, bag in zip([101, 999], [[], [102, 103]], strict=True)]
    both = make_features([101, 999], [[], [102, 103]])
    both["n0"] = torch.cat([make_features([0], [[]])["n0"]] * 2)
    both["n1"] = torch.cat([make_features([0], [[]])["n1"]] * 2)
    torch.testing.assert_close(scripted(both)[0], torch.cat([logits for logits, _ in one_by_one]), rtol=1e-5, atol=1e-6)
    assert scripted(make_features([101, 102], [[], []]))[0].isfinite().all()  # no value in any bag


def test_a_model_without_numeric_columns() -> None:
    trained = make_trained("full", num_numeric=0)
    features = make_features([101, 5], [[102], []], num_numeric=0)
    logits, _ = script_model(build_serving_model(trained, RowType.FLOAT32)[1])(features)
    assert_same(logits, reference_logits(trained, features))


def test_serving_bytes_are_those_of_the_plan() -> None:
    for row_type, width in itertools.product(RowType, [1, 2, 3, 5, 16]):
        trained = make_trained("wide_and_deep", width=width)
        narrowed = narrow(trained.parts, row_type)
        plan, tables = narrowed.plan, narrowed.tables
        stored = {name: table.numel() * table.element_size() for name, table in tables.items()}
        assert stored == {table.name: table.num_bytes for table in plan.tables}
        assert sum(stored.values()) == plan.table_bytes <= trained.parts.plan.table_bytes
        linear = plan.table("a__linear").row_type
        assert linear is (RowType.FLOAT16 if row_type is RowType.FLOAT16 else RowType.FLOAT32), (
            "codes would only grow it"
        )


def test_export_leaves_the_trained_model_as_it_was(tmp_path: Path) -> None:
    trained = make_trained("projection")
    trained.head.train()
    before = copy.deepcopy(trained.head.state_dict())
    export_model(trained, RowType.INT8, tmp_path / "model.pt")
    assert trained.head.training and all(p.requires_grad for p in trained.head.parameters())
    assert all(torch.equal(before[name], value) for name, value in trained.head.state_dict().items())


def test_saved_models_need_no_gradient_and_keep_their_scores(tmp_path: Path, features: dict[str, Tensor]) -> None:
    trained = make_trained("unified")
    path = tmp_path / "model.pt"
    export_model(trained, RowType.FLOAT32, path)
    logits, _ = load_scripted(path)(features)
    assert not logits.requires_grad
    assert_same(logits, reference_logits(trained, features))


def _with_table(trained: FrozenModel, name: str, table: Tensor | None) -> FrozenModel:
    tables = {key: value for key, value in trained.parts.tables.items() if key != name}
    if table is not None:
        tables[name] = table
    changed = copy.copy(trained)
    object.__setattr__(changed, "parts", replace(trained.parts, tables=tables))
    return changed


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (None, "not among the weights"),
        (torch.zeros(NUM_IDS + 1, 4), "the plan says torch.float32 (7, 4)"),
        (torch.zeros(NUM_IDS, 4, dtype=torch.float16), "torch.float16"),
        (torch.full((NUM_IDS, 4), torch.nan), "NaN or infinity"),
    ],
)
def test_tables_of_another_plan_are_refused(table: Tensor | None, said: str) -> None:
    trained = _with_table(make_trained("full"), "tags", table)
    with pytest.raises(CheckpointError) as caught:
        build_serving_model(trained, RowType.INT8)
    assert said in str(caught.value)
    assert "'tags'" in str(caught.value)


WRONG_INPUTS: dict[str, tuple[str, Tensor | None, str]] = {
    "missing numeric": ("n1", None, "input 'n1' is missing: pass float32"),
    "missing key": ("a", None, "input 'a' is missing: pass int64"),
    "missing lengths": ("tags__lengths", None, "input 'tags__lengths' is missing"),
    "float64": ("n0", torch.zeros(2, dtype=torch.float64), "input 'n0' has dtype"),
    "float keys": ("a", torch.zeros(2), "input 'a' has dtype"),
    "int32 keys": ("tags", torch.zeros(3, dtype=torch.int32), "input 'tags' has dtype"),
    "two dimensions": ("a", torch.zeros((2, 1), dtype=torch.int64), "input 'a' has shape [2, 1]"),
    "too few rows": ("a", torch.zeros(1, dtype=torch.int64), "input 'a' has 1 rows, but 'n1' has 2"),
    "lengths do not add up": ("tags__lengths", torch.tensor([1, 1]), "add up to the 3 values of 'tags'"),
    "negative length": ("tags__lengths", torch.tensor([4, -1]), "input 'tags__lengths' must hold counts >= 0"),
}


@pytest.mark.parametrize("case", WRONG_INPUTS)
def test_wrong_input_is_named_by_the_exported_model(case: str, scripted_full: torch.jit.ScriptModule) -> None:
    name, value, said = WRONG_INPUTS[case]
    features = make_features([101, 102], [[101, 102], [103]])
    if value is None:
        del features[name]
    else:
        features[name] = value
    with pytest.raises(torch.jit.Error) as caught:
        scripted_full(features)
    assert said in str(caught.value)


@pytest.fixture(scope="module")
def scripted_full() -> torch.jit.ScriptModule:
    return script_model(build_serving_model(make_trained("full"), RowType.FLOAT32)[1])


class _ForeignHead(nn.Module):
    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        if dense.size(0) > 0:  # hidden in a block
            dense = torch.ops.recsys_test_export.double(dense)
        return dense.sum(1)


def test_a_foreign_operator_is_refused_even_inside_a_branch() -> None:
    library = torch.library.Library("recsys_test_export", "DEF")
    library.define("double(Tensor x) -> Tensor")
    library.impl("double", lambda x: x * 2, "CPU")
    trained = copy.copy(make_trained("full"))
    object.__setattr__(trained, "head", _ForeignHead())
    with pytest.raises(ParityError, match="recsys_test_export::double"):
        script_model(build_serving_model(trained, RowType.FLOAT32)[1])
