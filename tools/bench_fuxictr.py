"""Ours beside FuxiCTR 2.3.10: the same rows in the same split, in one run, never both at once.

    python -m tools.bench_fuxictr --dataset criteo --data ../shared/data --seeds 1,2,3 --out .bench/criteo.json

For each seed, our side and then the peer's run from raw rows to test metrics, each in a fresh process whose whole
wall time counts. Ours starts from the raw file; the peer gets CSVs, whose writing is not counted. The split of
Criteo is our ingest's (its `__row__` column names the raw rows), that of Frappe is given by its three files.
The peer gets its own virtual environment (`.bench/fuxictr-venv`, made when absent; `--peer-python` names another).
"""

import argparse
import hashlib
import json
import logging
import os
import platform
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError, StageError

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / ".bench"
# `polars<2`: FuxiCTR 2.3.10 calls `scan_csv(dtypes=...)`, which polars 2 no longer takes.
PEER_REQUIREMENTS = (("torch==2.13.0",), ("fuxictr==2.3.10", "polars<2"))
OURS_COMMAND = "{python} -m pipelines.run experiment=bench/{dataset}_dcnv2 seed={seed} runs={runs} name=bench"
PARTS = {"train": "train", "validation": "valid", "test": "test"}  # our name -> the peer's
CRITEO_COLUMNS = ["label", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]
FRAPPE_IDS = ["user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city"]
FRAPPE_FILES = {"train": "train.reconstructed", "validation": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One side, one seed. Times are wall seconds; `wall_seconds` is that of the whole process."""

    side: str
    seed: int
    wall_seconds: float
    train_rows_per_second: float
    test_auc: float
    test_log_loss: float
    peak_rss_bytes: int  # of the largest single process
    busy_before: float  # share of the processors that something else used just before the start
    details: Mapping[str, object]  # the side's own record


def criteo_rows(data: Path) -> pl.DataFrame:
    """Return the raw Criteo rows as strings, null where a field is empty; frame row i is raw row i."""
    path = data / "criteo-sample" / "random137k.tsv.zst"
    if not path.exists():
        raise DataError(f"{path} is missing: --data must name the folder that holds criteo-sample/ and frappe/.")
    return pl.read_csv(path, separator="\t", has_header=False, new_columns=CRITEO_COLUMNS, infer_schema=False)


def frappe_rows(data: Path, part: str) -> pl.DataFrame:
    """Return one given part of Frappe: label 0/1 and the ten ids as strings."""
    path = data / "frappe" / f"frappe.{FRAPPE_FILES[part]}.libfm.zst"
    if not path.exists():
        raise DataError(f"{path} is missing: --data must name the folder that holds criteo-sample/ and frappe/.")
    raw = pl.read_csv(path, separator=" ", has_header=False, new_columns=["label", *FRAPPE_IDS], infer_schema=False)
    label = (pl.col("label") == "1").cast(pl.Int8)
    return raw.select(label, *(pl.col(name).str.split(":").list.first() for name in FRAPPE_IDS))


def ingested_split(folder: Path) -> dict[str, list[int]]:
    """Return the raw row positions of each part of an ingested data set, ascending."""
    files = {part: sorted((folder / part).glob("part-*.parquet")) for part in PARTS}
    if absent := [part for part, paths in files.items() if not paths]:
        raise DataError(f"{folder}: no part-*.parquet in {', '.join(absent)}; name the folder that ingest wrote.")
    return {part: sorted(pl.read_parquet(paths, columns=["__row__"])["__row__"]) for part, paths in files.items()}


def shuffled_split(num_rows: int, seed: int) -> dict[str, list[int]]:
    """Return an 8:1:1 split of `range(num_rows)` by a seeded shuffle, each part ascending."""
    rows = list(range(num_rows))
    random.Random(seed).shuffle(rows)
    tenth = num_rows // 10
    parts = {"train": rows[2 * tenth :], "validation": rows[tenth : 2 * tenth], "test": rows[:tenth]}
    return {part: sorted(chosen) for part, chosen in parts.items()}


def write_peer_split(frames: Mapping[str, pl.DataFrame], folder: Path) -> dict[str, object]:
    """Write train.csv, valid.csv and test.csv; return rows and digest of each, for the record."""
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, object] = {}
    for part, frame in frames.items():
        path = folder / f"{PARTS[part]}.csv"
        frame.write_csv(path)
        record[part] = {"rows": len(frame), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return record


def prepare_split(args: argparse.Namespace, ingested: Path | None, folder: Path) -> dict[str, object]:
    """Write the peer's CSVs for this data set: Frappe's given parts, else Criteo rows as `ingested` split them."""
    if args.dataset == "frappe":
        return write_peer_split({part: frappe_rows(args.data, part) for part in PARTS}, folder)
    frame = criteo_rows(args.data)
    rows = ingested_split(ingested) if ingested else shuffled_split(len(frame), args.split_seed)
    used = [row for part in rows.values() for row in part]
    if len(set(used)) != len(used) or not 0 <= min(used) <= max(used) < len(frame):
        raise DataError(f"{ingested}: __row__ repeats a row or leaves the {len(frame)} raw rows; ingest again.")
    return write_peer_split({part: frame[chosen] for part, chosen in rows.items()}, folder)


def peer_python(venv: Path) -> Path:
    """Return the interpreter of the peer's virtual environment, which is made when absent or half made."""
    python, ready = venv / "bin" / "python", venv / ".ready"
    if not ready.exists():
        shutil.rmtree(venv, ignore_errors=True)
        logger.info("making FuxiCTR's virtual environment in %s (about a minute and 3 GB)", venv)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        for requirements in PEER_REQUIREMENTS:
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
        ready.touch()
    return python


def busy_share(seconds: float = 2.0) -> float:
    """Return the share of all processors in use over the next `seconds`, 0 to 1 (Linux)."""

    def ticks() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(fields) - fields[3] - fields[4], sum(fields)  # idle and iowait are not work

    busy, total = ticks()
    time.sleep(seconds)
    later_busy, later_total = ticks()
    return (later_busy - busy) / max(1, later_total - total)


def run_timed(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> tuple[float, int]:
    """Run a command to its end, output into `log`; return its wall seconds and peak resident bytes.

    Raises:
        StageError: when it fails, with the end of its output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)
        # Not `process.wait`: only wait4 tells the memory of this very child (and of the children it waited for).
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise StageError(f"{shlex.join(command)} ended with {process.returncode}; the end of {log}:\n{tail}")
    return seconds, usage.ru_maxrss * 1024  # Linux counts KiB


def run_ours(args: argparse.Namespace, seed: int) -> Run:
    """Run our pipeline from raw rows to test metrics and read what its stages wrote."""
    runs = args.work / f"ours-{seed}"
    shutil.rmtree(runs, ignore_errors=True)  # a stage that finds its output finished would be skipped
    words = {"python": sys.executable, "dataset": args.dataset, "seed": seed, "runs": runs}
    environment = os.environ | {"RECSYS_DATA": str(args.data.resolve())}
    busy = busy_share()
    command = [word.format(**words) for word in shlex.split(args.ours)]
    seconds, peak = run_timed(command, args.work / f"ours-{seed}.log", environment)
    train = json.loads((runs / "bench" / "train" / "metrics.json").read_text())
    test = json.loads((runs / "bench" / "evaluate" / "metrics.json").read_text())
    return Run(
        side="ours",
        seed=seed,
        wall_seconds=seconds,
        train_rows_per_second=train["train.rows_per_second"],
        test_auc=test["auc"],
        test_log_loss=test["log_loss"],
        peak_rss_bytes=peak,
        busy_before=busy,
        details=train,
    )


def run_peer(args: argparse.Namespace, seed: int, python: Path) -> Run:
    """Run FuxiCTR on the CSVs in `args.work / "split"`."""
    record = args.work / f"peer-{seed}.json"
    command = [str(python), str(ROOT / "tools" / "fuxictr_peer.py"), "--dataset", args.dataset, "--seed", str(seed)]
    command += ["--data", str(args.work / "split"), "--work", str(args.work / "peer"), "--out", str(record)]
    command += ["--numeric", args.peer_numeric] if args.peer_numeric else []
    busy = busy_share()
    seconds, peak = run_timed(command, args.work / f"peer-{seed}.log", os.environ)
    details = json.loads(record.read_text())
    return Run(
        side="peer",
        seed=seed,
        wall_seconds=seconds,
        train_rows_per_second=details["train_rows_per_second"],
        test_auc=details["test_auc"],
        test_log_loss=details["test_log_loss"],
        peak_rss_bytes=peak,
        busy_before=busy,
        details=details,
    )


def summarise(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """Return, per side: medians of time, rate and memory, means of the metrics; with both sides, the ratios too."""

    def of(side: str) -> dict[str, float]:
        chosen = [run for run in runs if run.side == side]
        return {
            "wall_seconds": statistics.median(run.wall_seconds for run in chosen),
            "train_rows_per_second": statistics.median(run.train_rows_per_second for run in chosen),
            "peak_rss_bytes": statistics.median(run.peak_rss_bytes for run in chosen),
            "test_auc": statistics.fmean(run.test_auc for run in chosen),
            "test_log_loss": statistics.fmean(run.test_log_loss for run in chosen),
        }

    summary = {side: of(side) for side in sorted({run.side for run in runs})}
    if len(summary) == 2:
        ours, peer = summary["ours"], summary["peer"]
        summary["ratio"] = {
            "times_faster_end_to_end": peer["wall_seconds"] / ours["wall_seconds"],
            "times_training_rows_per_second": ours["train_rows_per_second"] / peer["train_rows_per_second"],
            "auc_difference": ours["test_auc"] - peer["test_auc"],
            "log_loss_difference": ours["test_log_loss"] - peer["test_log_loss"],
        }
    return summary


def report(runs: Iterable[Run], summary: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table that is printed: every run, then medians (times, rates) and means (metrics), then ratios."""
    head = f"{'side':<6}{'seed':>6}{'seconds':>10}{'rows/s':>10}{'AUC':>9}{'log loss':>10}{'peak MiB':>10}{'others':>8}"
    lines = [head]
    lines += [
        f"{run.side:<6}{run.seed:>6}{run.wall_seconds:>10.1f}{run.train_rows_per_second:>10.0f}{run.test_auc:>9.4f}"
        f"{run.test_log_loss:>10.4f}{run.peak_rss_bytes / 2**20:>10.0f}{run.busy_before:>8.0%}"
        for run in runs
    ]
    lines += [
        f"{side:<6}{'all':>6}{row['wall_seconds']:>10.1f}{row['train_rows_per_second']:>10.0f}{row['test_auc']:>9.4f}"
        f"{row['test_log_loss']:>10.4f}{row['peak_rss_bytes'] / 2**20:>10.0f}"
        for side, row in summary.items()
        if side != "ratio"
    ]
    lines += [f"{name.replace('_', ' ')}: {value:+.4f}" for name, value in summary.get("ratio", {}).items()]
    return "\n".join(lines)


def bench(args: argparse.Namespace) -> dict[str, object]:
    """Run both sides seed by seed; return the record, which is also written after every run."""
    python = (args.peer_python or peer_python(BENCH / "fuxictr-venv")) if "peer" in args.sides else None
    runs: list[Run] = []
    record: dict[str, object] = {"dataset": args.dataset, "cpus": os.cpu_count(), "machine": platform.platform()}
    for seed in args.seeds:
        ingested: Path | None = args.split_from
        if "ours" in args.sides:
            runs.append(run_ours(args, seed))
            ingested = ingested or next(args.work.glob(f"ours-{seed}/data/*/manifest.json")).parent
        if python:
            record[f"split_{seed}"] = prepare_split(args, ingested, args.work / "split")
            runs.append(run_peer(args, seed, python))
        record |= {"runs": [asdict(run) for run in runs], "summary": summarise(runs)}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(record, indent=2) + "\n")
    print(report(runs, summarise(runs)))
    if max(run.busy_before for run in runs) > 0.1:
        print("Something else used the processors (column `others`): these times are not to be quoted.")
    return record


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dataset", choices=("criteo", "frappe"), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds criteo-sample/ and frappe/")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[1, 2, 3])
    parser.add_argument("--out", type=Path, required=True, help="JSON record to write")
    parser.add_argument("--work", type=Path, help="folder for split, logs and the peer's files (.bench/<dataset>)")
    parser.add_argument("--sides", type=lambda text: text.split(","), default=["ours", "peer"])
    parser.add_argument("--ours", default=OURS_COMMAND, help="command of our side (default: %(default)s)")
    parser.add_argument("--split-from", type=Path, help="take the split of this ingested folder instead of our run's")
    parser.add_argument("--split-seed", type=int, default=0, help="8:1:1 shuffle, when only the peer runs")
    parser.add_argument("--peer-python", type=Path, help="interpreter with FuxiCTR 2.3.10 installed")
    parser.add_argument("--peer-numeric", help="the peer's treatment of numeric columns (see tools/fuxictr_peer.py)")
    args = parser.parse_args()
    args.work = (args.work or BENCH / args.dataset).resolve()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    bench(args)


if __name__ == "__main__":
    main()
