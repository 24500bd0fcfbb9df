"""The doctor: judges triples, survives what is missing or crashes, and names one line that repairs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines import doctor, doctor_kernels
from pipelines.doctor import Finding, Status

CPU_CHECKS = sorted(doctor_kernels.CHECKS)


@pytest.mark.parametrize("name", CPU_CHECKS)
def test_every_cpu_kernel_works_here(name: str) -> None:
    works, sentence = doctor.run_check(name)
    assert works, sentence
    assert sentence


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(doctor_kernels.CUDA_CHECKS))
def test_every_cuda_kernel_works_here(name: str) -> None:
    if not torch.cuda.is_available() or doctor.installed("fbgemm-gpu") is None:
        pytest.skip("needs a CUDA device and the CUDA build of FBGEMM (make install-cuda)")
    works, sentence = doctor.run_check(name)
    assert works, sentence


@pytest.mark.parametrize(
    ("torch_version", "torchrec", "fbgemm", "status", "repair"),
    [
        ("2.13.0+cpu", "1.8.0", {"fbgemm-gpu-cpu": "1.8.0"}, Status.GOOD, ""),
        ("2.12.1", "1.7.0", {"fbgemm-gpu": "1.7.0"}, Status.GOOD, ""),
        ("2.11.0+cu130", "1.6.1", {"fbgemm-gpu": "1.6.0"}, Status.GOOD, ""),
        ("2.11.0", "1.8.0", {"fbgemm-gpu": "1.6.0"}, Status.BAD, "fbgemm-gpu==1.6.0 torchrec==1.6.1"),
        ("2.13.0", "1.8.0", {}, Status.BAD, "fbgemm-gpu-cpu==1.8.0 torchrec==1.8.0"),
        ("2.13.0", None, {"fbgemm-gpu-cpu": "1.8.0"}, Status.BAD, "torchrec==1.8.0"),
        ("2.4.0", "1.8.0", {"fbgemm-gpu-cpu": "1.8.0"}, Status.BAD, "torch==2.13.0 &&"),
        (None, None, {}, Status.BAD, "torch==2.13.0 &&"),
        ("2.13.0", "1.8.0", {"fbgemm-gpu-cpu": "1.8.0", "fbgemm-gpu": "1.8.0"}, Status.BAD, "uninstall --yes"),
    ],
)
def test_triples(
    torch_version: str | None, torchrec: str | None, fbgemm: dict[str, str], status: Status, repair: str
) -> None:
    finding = doctor.triple_finding(torch_version, torchrec, fbgemm)
    assert finding.status is status, finding.detail
    assert repair in finding.repair
    assert bool(finding.repair) == (status is Status.BAD)
    assert "\n" not in finding.repair


def test_pinned_versions_are_a_known_good_triple() -> None:
    lines = (doctor.REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    assert pins["torch"] == doctor.DEFAULT_TORCH
    assert (pins["torchrec"], pins["fbgemm-gpu"]) == doctor.KNOWN_GOOD[doctor.minor(doctor.DEFAULT_TORCH)]
    assert pins["fbgemm-gpu"] == pins["fbgemm-gpu-cpu"]


def test_a_repair_is_one_line_without_repetition() -> None:
    same = [Finding(what=str(n), status=Status.BAD, detail="", repair=f"repair {n % 2}") for n in range(4)]
    assert doctor.repair_line(same) == "repair 0 && repair 1"
    assert doctor.repair_line([]) == ""


def test_unknown_check_is_reported_not_raised() -> None:
    works, sentence = doctor.run_check("no such kernel")
    assert not works
    assert "no such kernel" in sentence


def test_report_without_any_package(tmp_path: Path) -> None:
    """An interpreter with the standard library only: everything is absent, and the doctor still ends with a repair."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [bare / "bin" / "python", "-m", "pipelines.doctor"],
        cwd=doctor.REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "torch absent, torchrec absent, fbgemm absent" in done.stdout
    (repair,) = [line for line in done.stdout.splitlines() if line.startswith("repair: ")]
    assert "torch==2.13.0" in repair
    assert "polars" in repair


def test_a_check_that_kills_its_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = tmp_path / "pipelines"
    crash.mkdir()
    (crash / "doctor_kernels.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(doctor, "REPOSITORY", tmp_path)
    works, sentence = doctor.run_check("int8 embedding bag")
    assert not works
    assert "SIGSEGV" in sentence
