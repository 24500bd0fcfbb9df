"""Those who serve a bundle: Triton, a Python client, a C++ program, and the clock."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recsys.core.schema import CategoricalFeature, KeyType, Schema
from recsys.export.border import CLICK_OUTPUTS, TensorType, border_tensors
from recsys.export.bundle import GOLDEN_TENSORS_NAME
from recsys.export.card import example_code
from recsys.export.manifest import BundleManifest
from recsys.export.script import load_scripted
from recsys.export.triton import triton_config
from tests.export.world import make_schema

REPOSITORY = Path(__file__).resolve().parents[2]
CLICKS = dict.fromkeys(CLICK_OUTPUTS, TensorType.FLOAT32)


def test_triton_joins_requests_only_without_multi_valued_inputs() -> None:
    assert "max_batch_size: 0" in triton_config(border_tensors(make_schema()), CLICKS, name="clicks")
    single = Schema(label="y", categorical=(CategoricalFeature(name="a", key_type=KeyType.INTEGER),))
    text = triton_config(border_tensors(single), CLICKS, name="clicks")
    assert '{ name: "a" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } }' in text
    assert "max_batch_size: 4096\ndynamic_batching { }" in text
    assert '{ name: "probabilities__1" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }' in text


def test_the_example_of_the_model_card_runs_with_torch_and_xxhash_alone(bundle: Path) -> None:
    code = example_code(BundleManifest.read(bundle))
    assert code in (bundle / "MODEL_CARD.md").read_text()
    blocked = "import sys; sys.modules.update(dict.fromkeys(['recsys', 'torchrec', 'fbgemm_gpu', 'polars']))\n"
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", blocked + code],
        cwd=bundle,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    probabilities = json.loads(done.stdout)
    assert len(probabilities) == 2
    assert all(0 < p < 1 for p in probabilities)


def test_latency_is_measured_on_golden_rows(bundle: Path) -> None:
    command = [sys.executable, "tools/bench_serving.py", str(bundle), "--rows", "1", "12", "--repeats", "3"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["model"], line["rows"]) for line in lines] == [(m, r) for m in ("float32", "int8") for r in (1, 12)]
    assert all(0 < line["median_ms"] <= line["p99_ms"] for line in lines)


@pytest.mark.slow
def test_a_cpp_program_scores_the_bundle(bundle: Path, tmp_path: Path) -> None:
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("no cmake or C++ compiler here: install both to build tools/serve_example")
    prefix = torch.utils.cmake_prefix_path
    source = REPOSITORY / "tools" / "serve_example"
    for command in (
        ["cmake", "-S", str(source), "-B", str(tmp_path), f"-DCMAKE_PREFIX_PATH={prefix}"],
        ["cmake", "--build", str(tmp_path)],
    ):
        built = subprocess.run(["nice", "-n", "10", *command], capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stdout + built.stderr
    for file in ("model.pt", "model_int8.pt"):
        done = subprocess.run(
            [str(tmp_path / "serve_example"), str(bundle), file], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        golden = torch.load(bundle / GOLDEN_TENSORS_NAME, weights_only=True)
        printed = torch.tensor([float(line) for line in done.stdout.split()])
        expected = load_scripted(bundle / file)(golden["features"])[1]
        torch.testing.assert_close(printed, expected, rtol=1e-5, atol=1e-5)  # printed with 6 digits
    refused = subprocess.run(
        [str(tmp_path / "serve_example"), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "cannot be opened" in refused.stderr
