"""`tools/bench_gpu.py` itself, with tiny tables on the CPU; and its refusal where there is no GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-W", "ignore", str(REPOSITORY / "tools" / "bench_gpu.py"), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def test_every_contestant_is_measured_and_written(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    result = bench("--device", "cpu", "--rounds", "2", "--steps", "1", "--output", str(output))
    assert result.returncode == 0, result.stderr[-3000:]
    content = json.loads(output.read_text())
    assert content["environment"]["device"] == "cpu" and content["copy_bytes_per_second"] > 0
    lines = content["measured"]
    contestants = {line["contestant"] for line in lines}
    assert {"FBGEMM, raw", "nn.EmbeddingBag", "full"} < contestants
    assert len(lines) == 2 * len(contestants) and all(name in result.stdout for name in contestants)
    assert all(line["milliseconds"] > 0 and line["bandwidth_share"] > 0 for line in lines)
    moved = {line["contestant"]: line["bytes_moved"] for line in lines[: len(contestants)]}
    # 26 x 64 look-ups of 16 values: rows, embeddings, gradients (4 bytes each) and ids; then what changed, twice.
    at_least = 26 * 64 * (3 * 4 * 16 + 16)
    assert moved["full"] == moved["FBGEMM, raw"] > moved["nn.EmbeddingBag"] > at_least
    assert moved["full"] <= at_least + 26 * 64 * 8 * 17


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_exits_with_2() -> None:
    result = bench()
    assert result.returncode == 2
    assert "sees no CUDA device" in result.stderr and "Traceback" not in result.stderr
