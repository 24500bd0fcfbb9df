"""Rows per second and memory of an evaluation that streams its predictions from Parquet, and how exact it is.

    python -m tools.bench_evaluate [--rows 1000000 10000000] [--folder .bench/evaluate]

Predictions are generated, file by file, and scored in a process of their own each: all metrics with their intervals,
then the same with GAUC by user and slices by a column. CPU seconds are told beside those of the clock, for a machine
that others use too. Memory is the process's largest resident size, less that before the first row: it grows with the
distinct logits, at the peak of merging about five times the 20 bytes that exact metrics keep of each, not with rows.
At the smallest size AUC, average precision, log loss and Brier score are computed by scikit-learn too, from all rows at
once.
"""

import argparse
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from recsys.core.memory import peak_mib
from recsys.evaluate import EvaluateConfig, Predictions, evaluate

CHUNK = 1 << 20
USERS_PER_ROW = 0.02
TASKS = {
    "metrics": EvaluateConfig(),
    "GAUC and slices too": EvaluateConfig(group_key="user", slices=["device"]),
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One evaluation."""

    rows: int
    task: str
    seconds: float
    cpu_seconds: float
    grown_mib: float  # largest resident memory, less that before
    metrics: dict[str, float | None]
    interval: tuple[float | None, float | None]  # of the AUC


def generate(path: Path, num_rows: int) -> None:
    """Write predictions of a model that is a little too sure; one part in memory at a time."""
    generator = np.random.default_rng(num_rows)
    with pq.ParquetWriter(path, part(generator, 1, num_rows).to_arrow().schema) as writer:
        for start in range(0, num_rows, CHUNK):
            writer.write_table(part(generator, min(CHUNK, num_rows - start), num_rows).to_arrow())


def part(generator: np.random.Generator, size: int, num_rows: int) -> pl.DataFrame:
    """Rows of `num_rows` in all."""
    true = generator.normal(-1.5, 1.0, size)
    logits = (1.2 * true + generator.normal(0, 0.5, size)).astype(np.float32)
    return pl.DataFrame(
        {
            "label": (generator.random(size) < 1 / (1 + np.exp(-true))).astype(np.float32),
            "logit": logits,
            "probability": (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32),
            "user": (generator.random(size) ** 2 * num_rows * USERS_PER_ROW).astype(np.int64),
            "device": generator.integers(0, 5, size).astype(np.int8),
        }
    )


def measure(path: Path, task: str) -> Measured:
    """Evaluate a file; to be called in a process that has done nothing else."""
    source = Predictions.read(path)
    evaluate(source.frame.head(1000).collect(), TASKS[task])  # what is loaded once
    before, started, cpu = peak_mib(), time.perf_counter(), time.process_time()
    found = evaluate(source, TASKS[task])
    seconds, cpu_seconds, grown = time.perf_counter() - started, time.process_time() - cpu, peak_mib() - before
    ends = found.intervals["auc"]
    return Measured(
        rows=source.num_rows,
        task=task,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        grown_mib=grown,
        metrics={name: metric.value for name, metric in found.metrics.items()},
        interval=(ends.low.value, ends.high.value),
    )


def differences(path: Path, metrics: dict[str, float | None]) -> dict[str, float]:
    """Absolute differences from scikit-learn, by metric."""
    frame = pl.read_parquet(path, columns=["label", "logit"])
    labels, logits = frame["label"].to_numpy(), frame["logit"].to_numpy().astype(np.float64)
    probabilities = 1 / (1 + np.exp(-logits))
    theirs = {
        "auc": roc_auc_score(labels, logits),
        "pr_auc": average_precision_score(labels, logits),
        "log_loss": log_loss(labels, probabilities),
        "brier_score": brier_score_loss(labels, probabilities),
    }
    return {name: abs((metrics[name] or 0.0) - float(value)) for name, value in theirs.items()}


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**6, 10**7])
    parser.add_argument("--folder", type=Path, default=Path(".bench/evaluate"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"{'rows':>13}  {'task':<20}{'seconds':>9}{'rows/s':>12}{'rows/CPU s':>12}{'grown MiB':>11}  AUC, 95%")
    for number, num_rows in enumerate(sorted(options.rows)):
        path = options.folder / f"{num_rows}.parquet"
        if not path.is_file():
            generate(path.with_suffix(".partial"), num_rows)
            path.with_suffix(".partial").rename(path)
        for task in TASKS:
            # One process a measurement: peak memory never shrinks again.
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                found = pool.submit(measure, path, task).result()
            _show(found)
            (options.folder / f"{num_rows} {task}.json").write_text(json.dumps(asdict(found), indent=1))
            if number == 0 and task == "metrics":
                apart = differences(path, found.metrics)
                print("  from scikit-learn: " + ", ".join(f"{name} {value:.1e}" for name, value in apart.items()))


def _show(found: Measured) -> None:
    rate, cpu_rate = found.rows / found.seconds, found.rows / found.cpu_seconds
    low, high = (f"{end:.6f}" if end is not None else "undefined" for end in found.interval)
    print(
        f"{found.rows:>13,}  {found.task:<20}{found.seconds:>9.1f}{rate:>12,.0f}{cpu_rate:>12,.0f}"
        f"{found.grown_mib:>11,.0f}  {found.metrics['auc']:.6f} ({low}, {high})"
    )


if __name__ == "__main__":
    main()
