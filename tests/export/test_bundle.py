"""Bundles as a whole: written, verified, read back, refused when damaged, and served by strangers."""

import copy
import math
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from recsys.core.errors import ConfigError, DataError, ParityError
from recsys.core.jsonable import build_config
from recsys.core.specs import RowType
from recsys.export import fresh_process
from recsys.export.border import border_tensors, slice_rows
from recsys.export.bundle import GOLDEN_TENSORS_NAME, write_bundle
from recsys.export.config import ExportConfig
from recsys.export.fresh_process import check_in_fresh_process
from recsys.export.index_config import IndexConfig
from recsys.export.manifest import BundleManifest
from recsys.export.parity import Parity
from recsys.export.script import load_scripted
from tests.export.bundles import LOOSE, METRICS, NUM_ROWS, make_golden
from tests.export.constant import stated_constant
from tests.export.world import make_features, make_schema, make_trained, reference_logits

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def test_a_bundle_holds_what_the_contract_names(bundle: Path) -> None:
    assert {path.name for path in bundle.iterdir()} == {
        "model.pt",
        "model_int8.pt",
        "manifest.json",
        "parity.json",
        "MODEL_CARD.md",
        "config.pbtxt",
        "golden.pt",  # golden.parquet is written by the stage, which has polars
    }
    manifest, parity = BundleManifest.read(bundle), Parity.read(bundle)
    assert manifest.lineage == {"run": "r1", "epochs": 3}
    assert [tensor.name for tensor in manifest.inputs] == ["n0", "n1", "a", "tags", "tags__lengths"]
    assert manifest.versions["torch"] == torch.__version__
    assert parity.num_rows == NUM_ROWS
    assert parity.of(RowType.FLOAT32).max_abs_logit_difference < 1e-5
    assert 0 < parity.of(RowType.INT8).max_abs_logit_difference < 0.05
    golden = torch.load(bundle / GOLDEN_TENSORS_NAME, weights_only=True)
    assert golden["logits"].shape == golden["labels"].shape == (5,)
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "| `tags__lengths` | int64 | (B,) | number of values of 'tags' in each row |" in card


def test_file_bytes_are_plan_head_and_encoder_plus_a_constant(bundle: Path) -> None:
    """Code and zip headers; the bound is the one that `ModelFile` states."""
    manifest = BundleManifest.read(bundle)
    for model in manifest.models.values():
        constant = model.file_bytes - model.plan_bytes - model.head_bytes - model.encoder_bytes
        assert 0 < constant < stated_constant((bundle / model.file).read_bytes(), model.plan)
        assert model.bytes_by_table == {table.name: table.num_bytes for table in model.plan.tables}
        assert (bundle / model.file).stat().st_size == model.file_bytes


def test_golden_rows_reproduce_from_the_files(bundle: Path) -> None:
    golden = torch.load(bundle / GOLDEN_TENSORS_NAME, weights_only=True)
    model = load_scripted(BundleManifest.read(bundle).model_path(bundle, RowType.FLOAT32))
    torch.testing.assert_close(model(golden["features"])[0], golden["logits"], rtol=1e-5, atol=1e-6)


def test_rows_are_sliced_with_their_values() -> None:
    features = make_features([1, 2, 3, 4], [[10], [], [20, 21], [30]])
    part = slice_rows(features, border_tensors(make_schema()), start=1, stop=3)
    assert part["a"].tolist() == [2, 3]
    assert part["tags"].tolist() == [20, 21]
    assert part["tags__lengths"].tolist() == [0, 2]


def test_narrow_rows_that_gain_nothing_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With scale and bias a row of two int8 values takes no less than one of float32."""
    trained, golden = make_trained("full", width=2), make_golden("full")
    logits = reference_logits(trained, golden.features)
    golden = replace(golden, logits=logits, trained_logits=logits)
    write_bundle(tmp_path, trained, golden, config=LOOSE, metrics=METRICS, lineage={})
    (line,) = (line for line in caplog.messages if "no smaller" in line)
    assert line.startswith("model_int8.pt (") and "leave int8 out of export.row_types" in line


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_an_export_that_deviates_is_refused_without_a_manifest(tmp_path: Path) -> None:
    golden = make_golden("full")
    wrong = replace(golden, logits=golden.logits + 1e-3)
    with pytest.raises(ParityError, match=r"float32 model: logit_error is .* beyond export.max_logit_error=0.0001"):
        write_bundle(tmp_path, make_trained("full"), wrong, config=LOOSE, metrics=METRICS, lineage={})
    assert not (tmp_path / "manifest.json").exists()


def test_an_int8_model_beyond_its_limits_is_refused(tmp_path: Path) -> None:
    config = replace(LOOSE, max_log_loss_delta=1e-9)
    with pytest.raises(ParityError, match="int8 model: log_loss_delta"):
        write_bundle(tmp_path, make_trained("full"), make_golden("full"), config=config, metrics=METRICS, lineage={})


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    trained = copy.deepcopy(make_trained("full"))
    next(trained.head.parameters()).data.fill_(math.inf)
    with pytest.raises(ParityError, match="NaN or infinite"):
        write_bundle(tmp_path, trained, make_golden("full"), config=LOOSE, metrics=METRICS, lineage={})


def test_golden_rows_of_one_class_leave_auc_undefined(tmp_path: Path) -> None:
    golden = replace(make_golden("full"), labels=torch.ones(NUM_ROWS))
    config = replace(LOOSE, row_types=[RowType.FLOAT32])
    parity = write_bundle(tmp_path, make_trained("full"), golden, config=config, metrics=METRICS, lineage={})
    assert parity.trained_auc is None
    assert parity.of(RowType.FLOAT32).auc_delta is None
    assert Parity.read(tmp_path) == parity


def test_golden_rows_without_logits_are_refused(tmp_path: Path) -> None:
    golden = make_golden("full")
    for wrong, said in (
        (replace(golden, logits=golden.logits[:-1]), "40 labels, 39 logits"),
        (replace(golden, logits=golden.logits * torch.nan), "NaN"),
        (replace(golden, features={k: v for k, v in golden.features.items() if k != "a"}), "missing inputs ['a']"),
    ):
        with pytest.raises(ConfigError) as caught:
            write_bundle(tmp_path, make_trained("full"), wrong, config=LOOSE, metrics=METRICS, lineage={})
        assert said in str(caught.value)


def test_a_damaged_bundle_is_named(copied: Path) -> None:
    manifest, path = BundleManifest.read(copied), copied / "model.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged"):
        manifest.model_path(copied, RowType.FLOAT32)
    with pytest.raises(DataError, match="truncated or damaged"):
        load_scripted(path)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path.write_bytes(bytes(flipped))
    with pytest.raises(DataError, match="damaged"):
        manifest.model_path(copied, RowType.FLOAT32)
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        manifest.model_path(copied, RowType.FLOAT32)
    with pytest.raises(DataError, match="no such file"):
        load_scripted(path)
    with pytest.raises(DataError, match="no float16 model; there are"):
        manifest.model_path(copied, RowType.FLOAT16)


@pytest.mark.parametrize(
    ("text", "said"), [(None, "no such file"), ("{", "not valid JSON"), ("{}", "format_version is missing")]
)
def test_a_damaged_manifest_is_named(copied: Path, text: str | None, said: str) -> None:
    path = copied / "manifest.json"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(DataError, match=said):
        BundleManifest.read(copied)


def test_a_bundle_of_another_schema_is_refused(bundle: Path) -> None:
    manifest = BundleManifest.read(bundle)
    manifest.check_schema(make_schema())
    with pytest.raises(DataError, match="Its columns or their meaning differ"):
        manifest.check_schema(make_schema(num_numeric=3))


def test_the_fresh_process_speaks_when_scores_differ_or_files_are_broken(copied: Path) -> None:
    golden = torch.load(copied / GOLDEN_TENSORS_NAME, weights_only=True)
    logits, probabilities = said = golden["logits"], golden["probabilities"]
    for wrong in ((logits + 1, probabilities), (logits, probabilities + 0.01)):
        with pytest.raises(ParityError, match="scores differ by"):
            check_in_fresh_process(copied / "model.pt", golden["features"], wrong)
    (copied / "model.pt").write_bytes(b"no model")
    with pytest.raises(ParityError, match=r"(?s)could not reproduce.*Error"):
        check_in_fresh_process(copied / "model.pt", golden["features"], said)


def test_the_fresh_process_finds_a_model_by_a_relative_path(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = torch.load(copied / GOLDEN_TENSORS_NAME, weights_only=True)
    monkeypatch.chdir(copied.parent)
    said = golden["logits"], golden["probabilities"]
    check_in_fresh_process(Path(copied.name) / "model.pt", golden["features"], said)


def test_the_fresh_process_can_import_torch_but_not_this_package() -> None:
    code = (
        f"import runpy, sys; module = runpy.run_path({str(fresh_process.RELOAD_SCRIPT)!r})\n"
        "sys.path.insert(0, '.'); sys.meta_path.insert(0, module['OnlyTorch']())\n"
        "import torch\n"
        "for name in ('recsys', 'torchrec', 'fbgemm_gpu', 'polars', 'hydra'):\n"
        "    try:\n        __import__(name)\n"
        "    except ModuleNotFoundError as error:\n        assert 'may not be imported' in str(error)\n"
        "    else:\n        raise SystemExit(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"row_types": [RowType.INT8]}, "FLOAT32 must be among them"),
        ({"row_types": [RowType.FLOAT32] * 2}, "none may repeat"),
        ({"max_logit_error": -1.0}, "max_logit_error=-1.0"),
        ({"max_auc_delta": math.nan}, "max_auc_delta=nan"),
        ({"num_golden_rows": 0}, "num_golden_rows=0"),
        ({"num_parity_rows": 10}, "num_golden_rows=1000"),
    ],
)
def test_impossible_configs_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ExportConfig(**values)  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_the_yaml_gives_the_defaults_of_the_class() -> None:
    values = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "conf" / "export" / "default.yaml"))
    assert isinstance(values, dict)
    assert set(values) - {"_target_"} == {field.name for field in fields(ExportConfig)}
    assert set(values["index"]) == {field.name for field in fields(IndexConfig)}
    assert build_config(ExportConfig, values, key="export") == ExportConfig()
