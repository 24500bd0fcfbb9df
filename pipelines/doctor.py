"""`python -m pipelines.doctor`: versions, devices, which kernels work, and the one line that repairs what does not.

Exit status 0 when all is right, 1 otherwise. Needs nothing but the standard library: what is missing is the finding.
"""

import importlib.metadata
import os
import platform
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pipelines import doctor_kernels

REPOSITORY = Path(__file__).resolve().parent.parent
CHECK_SECONDS = 180

KNOWN_GOOD: dict[str, tuple[str, str]] = {
    "2.11": ("1.6.1", "1.6.0"),
    "2.12": ("1.7.0", "1.7.0"),
    "2.13": ("1.8.0", "1.8.0"),
}
"""torch -> (TorchRec, FBGEMM) that were built for it; of TorchRec and FBGEMM any patch release of that minor does."""

DEFAULT_TORCH = "2.13.0"
FBGEMM_NAMES = ("fbgemm-gpu-cpu", "fbgemm-gpu")
OTHERS = ("polars", "polars-hash", "hydra-core", "omegaconf", "numpy", "pyarrow", "tensordict", "torchmetrics", "rich")
CPU_FLAGS = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX512", "avx2": "AVX2"}


class Status(Enum):
    """What a finding means."""

    GOOD = "ok"
    NOTE = "note"  # worth knowing, nothing to repair
    BAD = "BAD"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row of the report; `repair` is a shell command, for a BAD one."""

    what: str
    status: Status
    detail: str
    repair: str = ""


def installed(name: str) -> str | None:
    """Version of a distribution, without importing it; None when it is absent."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def minor(version: str) -> str:
    """`2.13` of `2.13.0+cpu`."""
    return ".".join(version.split("+")[0].split(".")[:2])


def pip(*arguments: str) -> str:
    """A pip command line for the interpreter that runs now."""
    return shlex.join([sys.executable, "-m", "pip", "install", *arguments])


def triple_repair(torch: str | None, flavour: str) -> str:
    """The line that installs a known-good triple, keeping torch where it is part of one.

    Args:
        torch: version found, or None.
        flavour: `fbgemm-gpu-cpu` or `fbgemm-gpu`.
    """
    keep = torch is not None and minor(torch) in KNOWN_GOOD
    torchrec, fbgemm = KNOWN_GOOD[minor(torch if keep and torch else DEFAULT_TORCH)]
    # Without dependencies: TorchRec's name the CUDA build of FBGEMM, also on a machine that has no GPU.
    rest = pip("--no-deps", "--force-reinstall", f"{flavour}=={fbgemm}", f"torchrec=={torchrec}")
    return rest if keep else f"{pip(f'torch=={DEFAULT_TORCH}')} && {rest}"


def triple_finding(torch: str | None, torchrec: str | None, fbgemm: dict[str, str]) -> Finding:
    """Judge the three versions together.

    Args:
        torch: version, or None when absent.
        torchrec: version, or None when absent.
        fbgemm: version by distribution name; right is exactly one of `FBGEMM_NAMES`.
    """
    flavour = next(iter(fbgemm)) if len(fbgemm) == 1 else FBGEMM_NAMES[0]
    found = f"torch {torch or 'absent'}, torchrec {torchrec or 'absent'}, " + (
        ", ".join(f"{name} {version}" for name, version in fbgemm.items()) or "fbgemm absent"
    )
    repair = triple_repair(torch, flavour)
    if len(fbgemm) > 1:
        remove = shlex.join([sys.executable, "-m", "pip", "uninstall", "--yes", *FBGEMM_NAMES])
        why = "both builds of FBGEMM share one folder"
        return Finding(what="triple", status=Status.BAD, detail=f"{found}: {why}", repair=f"{remove} && {repair}")
    if torch is not None and torchrec is not None and fbgemm:
        want = KNOWN_GOOD.get(minor(torch))
        if want is not None and (minor(torchrec), minor(fbgemm[flavour])) == (minor(want[0]), minor(want[1])):
            return Finding(what="triple", status=Status.GOOD, detail=f"{found}: known to work together")
    known = "; ".join(f"{key} with {pair[0]} and {pair[1]}" for key, pair in KNOWN_GOOD.items())
    return Finding(
        what="triple", status=Status.BAD, detail=f"{found}: not a known-good triple ({known})", repair=repair
    )


def version_findings() -> list[Finding]:
    """Python, the triple, and every other package."""
    python, enough = platform.python_version(), sys.version_info >= (3, 11)
    findings = [
        Finding(
            what="python",
            status=Status.GOOD if enough else Status.BAD,
            detail=f"{python} at {sys.executable}" + ("" if enough else ": 3.11 or newer is needed"),
            repair="" if enough else "make clean && make PYTHON=python3.11 test",
        )
    ]
    fbgemm = {name: version for name in FBGEMM_NAMES if (version := installed(name)) is not None}
    findings.append(triple_finding(installed("torch"), installed("torchrec"), fbgemm))
    versions = {name: installed(name) for name in OTHERS}
    repair = others_repair([name for name, version in versions.items() if version is None])
    for name, version in versions.items():
        if version is None:
            findings.append(Finding(what=name, status=Status.BAD, detail="absent", repair=repair))
        else:
            findings.append(Finding(what=name, status=Status.GOOD, detail=version))
    return findings


def others_repair(absent: Sequence[str]) -> str:
    """The line that installs what is absent, in the tested versions where torch is the tested one too."""
    torch, constraints = installed("torch"), REPOSITORY / "constraints.txt"
    tested = torch is None or minor(torch) == minor(DEFAULT_TORCH)  # elsewhere the constraints would exchange torch
    return pip(*(("--constraint", str(constraints)) if tested and constraints.is_file() else ()), *absent)


def cpu_finding() -> Finding:
    """Cores this process may use, and the vector instructions that matter here, where Linux tells."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    information = Path("/proc/cpuinfo")
    text = information.read_text(errors="replace") if information.is_file() else ""
    lines = [line.partition(":") for line in text.splitlines()]
    flags = next((set(value.split()) for key, _, value in lines if key.strip() == "flags"), set[str]())
    model = next((value.strip() for key, _, value in lines if key.strip() == "model name"), platform.machine())
    vectors = ", ".join(name for flag, name in CPU_FLAGS.items() if flag in flags) or "no vector flags known"
    return Finding(what="cpu", status=Status.NOTE, detail=f"{model}: {cores} cores, {vectors}")


def run_check(name: str) -> tuple[bool, str]:
    """Run one check of `doctor_kernels` in a process of its own: (works, sentence)."""
    command = [sys.executable, "-W", "ignore", "-m", "pipelines.doctor_kernels", name]
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=CHECK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"gave no answer within {CHECK_SECONDS} s"
    if done.returncode == 0:
        return True, done.stdout.strip()
    if done.returncode < 0:
        return False, f"killed by {signal.Signals(-done.returncode).name}: built for another torch or another CPU"
    return False, (done.stderr.strip().splitlines() or ["no message"])[-1]


def gpu_findings() -> list[Finding]:
    """CUDA devices that torch can use; a GPU that the build cannot use is a note."""
    works, text = run_check("devices")
    if works and text:
        return [Finding(what="gpu", status=Status.NOTE, detail=line) for line in text.splitlines()]
    driver = Path("/proc/driver/nvidia/version").exists()
    detail = (
        "a driver is there, but torch cannot use it: `make install-cuda`" if driver else "none, the CPU build is right"
    )
    return [Finding(what="gpu", status=Status.NOTE, detail=detail)]


def kernel_findings(with_cuda: bool, repair: str) -> list[Finding]:
    """Try every kernel; `repair` is the line for those that fail."""
    findings = []
    checks = [*doctor_kernels.CHECKS, *(doctor_kernels.CUDA_CHECKS if with_cuda else ())]
    for number, name in enumerate(checks, start=1):
        print(f"[{number}/{len(checks)}] {name}", file=sys.stderr, flush=True)
        works, sentence = run_check(name)
        status = Status.GOOD if works else Status.BAD
        findings.append(Finding(what=name, status=status, detail=sentence, repair="" if works else repair))
    return findings


def examine() -> list[Finding]:
    """All findings, in the order of the report."""
    findings = [*version_findings(), cpu_finding(), *gpu_findings()]
    has_gpu = any(finding.what == "gpu" and "GiB" in finding.detail for finding in findings)
    cuda_build = installed("fbgemm-gpu") is not None
    if has_gpu and not cuda_build:
        detail = "FBGEMM is the CPU build, so tables stay in main memory: `make install-cuda` exchanges it"
        findings.append(Finding(what="FBGEMM, CUDA", status=Status.NOTE, detail=detail))
    flavour = FBGEMM_NAMES[1] if cuda_build else FBGEMM_NAMES[0]
    broken = [finding.repair for finding in findings if finding.status is Status.BAD]
    # A kernel that fails while something is missing fails for that reason: no second repair.
    repair = "" if broken else triple_repair(installed("torch"), flavour)
    return [*findings, *kernel_findings(has_gpu and cuda_build, repair)]


def repair_line(findings: Sequence[Finding]) -> str:
    """One shell line that repairs everything that is BAD; empty when nothing is."""
    return " && ".join(dict.fromkeys(finding.repair for finding in findings if finding.repair))


def show(findings: Sequence[Finding]) -> None:
    """Print the table, with rich where it is installed."""
    try:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ImportError:
        for finding in findings:
            print(f"{finding.status.value:5} {finding.what:32} {finding.detail}")
        return
    colours = {Status.GOOD: "green", Status.NOTE: "cyan", Status.BAD: "bold red"}
    table = Table("", "what", "found")
    for finding in findings:
        colour = colours[finding.status]
        table.add_row(f"[{colour}]{finding.status.value}[/]", escape(finding.what), escape(finding.detail))
    Console().print(table)


def main() -> int:
    """Examine, report, and say how to repair; returns the exit status."""
    findings = examine()
    show(findings)
    bad = [finding.what for finding in findings if finding.status is Status.BAD]
    if not bad:
        print("all is right")
        return 0
    print(f"{len(bad)} wrong: {', '.join(bad)}\nrepair: {repair_line(findings)}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
