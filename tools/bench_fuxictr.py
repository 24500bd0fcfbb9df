"""Ours beside FuxiCTR 2.3.10: the same rows in the same split, in one run, never both at once.

    python -m tools.bench_fuxictr --dataset criteo --data ../shared/data --seeds 1,2,3 --out .bench/criteo.json

For each seed, our side and then the peer's run from raw rows to test metrics, each in a fresh process whose whole
wall time counts. Ours starts from the raw file; the peer gets CSVs, whose writing is not counted. The split of
Criteo is our ingest's (its `__row__` column names the raw rows), that of Frappe is given by its three files.
The peer gets its own virtual environment (`.bench/fuxictr-venv`, made when absent; `--peer-python` names another) and
its own repository of models (`.bench/fuxictr-zoo`).
"""

import argparse
import json
import logging
import os
import platform
import random
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from recsys.core.errors import DataError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, it would not find its other half
from tools.fuxictr_setup import (
    BENCH,
    CRITEO_CATEGORICAL,
    CRITEO_NUMERIC,
    FRAPPE_IDS,
    PARTS,
    PeerPlace,
    PeerSettings,
    criteo_rows,
    frappe_rows,
    ingested_split,
    installed_peer,
    run_timed,
    write_peer_split,
)

OURS_COMMAND = "{python} -m pipelines.run experiment=bench/{dataset}_dcnv2 seed={seed} runs={runs} name=bench"
DCNV2 = {"model_structure": "parallel", "parallel_dnn_hidden_units": [400, 400, 400]}
PEER_SETTINGS = {
    "criteo": PeerSettings(
        zoo_file="DCNv2/src/DCNv2.py",
        model="DCNv2",
        arguments=DCNV2 | {"num_cross_layers": 3, "embedding_regularizer": 1e-5, "embedding_dim": 16},
        numeric=CRITEO_NUMERIC,
        categorical=CRITEO_CATEGORICAL,
        numeric_treatment="standard",
        embedding_dim=16,
    ),
    # BARS' best DCNv2 on frappe_x1.
    "frappe": PeerSettings(
        zoo_file="DCNv2/src/DCNv2.py",
        model="DCNv2",
        arguments=DCNV2
        | {"num_cross_layers": 4, "net_dropout": 0.4, "batch_norm": True}
        | {"embedding_regularizer": 0.05, "embedding_dim": 10},
        numeric=[],
        categorical=FRAPPE_IDS,
        numeric_treatment="standard",
        embedding_dim=10,
    ),
}


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


def shuffled_split(num_rows: int, seed: int) -> dict[str, list[int]]:
    """Return an 8:1:1 split of `range(num_rows)` by a seeded shuffle, each part ascending."""
    rows = list(range(num_rows))
    random.Random(seed).shuffle(rows)
    tenth = num_rows // 10
    parts = {"train": rows[2 * tenth :], "validation": rows[tenth : 2 * tenth], "test": rows[:tenth]}
    return {part: sorted(chosen) for part, chosen in parts.items()}


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


def busy_share(seconds: float = 2.0) -> float:
    """Return the share of all processors in use over the next `seconds`, 0 to 1 (Linux)."""

    def ticks() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(fields) - fields[3] - fields[4], sum(fields)  # idle and iowait are not work

    busy, total = ticks()
    time.sleep(seconds)
    later_busy, later_total = ticks()
    return (later_busy - busy) / max(1, later_total - total)


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


def run_peer(args: argparse.Namespace, seed: int, place: PeerPlace) -> Run:
    """Run FuxiCTR on the CSVs in its place."""
    record = args.work / f"peer-{seed}.json"
    settings = PEER_SETTINGS[args.dataset]
    if args.peer_numeric:
        settings = replace(settings, numeric_treatment=args.peer_numeric)
    # It takes up encoded rows that it finds, which would leave the preprocessing out of the measurement.
    shutil.rmtree(place.work, ignore_errors=True)
    busy = busy_share()
    seconds, peak = run_timed(place.command(settings, seed, record), args.work / f"peer-{seed}.log", os.environ)
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
    place = None
    if "peer" in args.sides:
        place = installed_peer(args.work / "split", args.work / "peer", args.peer_python)
    runs: list[Run] = []
    record: dict[str, object] = {"dataset": args.dataset, "cpus": os.cpu_count(), "machine": platform.platform()}
    for seed in args.seeds:
        ingested: Path | None = args.split_from
        if "ours" in args.sides:
            runs.append(run_ours(args, seed))
            ingested = ingested or next(args.work.glob(f"ours-{seed}/data/*/manifest.json")).parent
        if place:
            record[f"split_{seed}"] = prepare_split(args, ingested, place.split)
            runs.append(run_peer(args, seed, place))
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
