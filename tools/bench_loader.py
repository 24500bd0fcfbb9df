"""Rows per second of the loader beside what the fastest model trains on, of one-hot and of multi-valued rows.

    python -m tools.bench_loader [CASE …] [--rounds 9] [--threads 2] [--precision bfloat16] [--out FILE]

A case is `MODEL@DATA` of a data set with files, as `tools.bench_train` has them; by default `lr`, the model with the
least work a row, on Criteo's sample, on generated rows with a multi-valued column, and on generated histories: three
lists of 25 events on average. The loader reads the files of an epoch and makes its
batches in this thread; it and a training step take turns within every round, and medians of all rounds are told. Run it
alone on the machine.
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from pipelines.entry import set_up_logging
from recsys.core.errors import ConfigError
from recsys.train.config import DeviceConfig, Precision, TrainConfig
from recsys.train.session import process_group
from tools.bench_train import Case, case, parts
from tools.stepping import take_turns

CASES = ("lr@criteo_sample", "lr@synthetic", "lr@planted_interests")
LOADER, MODEL, RATIO = "loader rows/s", "model rows/s", "loader / model"


def measured(found: Case, config: TrainConfig, device: torch.device, *, rounds: int) -> dict[str, float]:
    """Figures of a case, by the table's headings."""
    if found.loader is None:
        raise ConfigError(f"{found.label}: has no files to load. Give a case MODEL@DATA, such as {CASES[0]}.")
    runs = parts(found, config, device)
    turns = take_turns({name: runs[name] for name in ("loader", "step")}, rounds)
    seconds = {name: statistics.median(taken) for name, taken in turns.items()}
    batch_rows = found.batch.labels.numel()
    figures = {LOADER: batch_rows * found.loader.num_batches / seconds["loader"], MODEL: batch_rows / seconds["step"]}
    return {**figures, RATIO: figures[LOADER] / figures[MODEL]}


def table_of(results: dict[str, dict[str, float]]) -> Table:
    """A line a case."""
    table = Table("case", LOADER, MODEL, RATIO)
    for label, figures in results.items():
        table.add_row(label, f"{figures[LOADER]:,.0f}", f"{figures[MODEL]:,.0f}", f"{figures[RATIO]:.1f}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--precision", type=Precision, default=Precision.BFLOAT16)
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    options = parser.parse_args(arguments)
    set_up_logging()
    config = TrainConfig(run_on=DeviceConfig(num_threads=options.threads, precision=options.precision))
    with process_group(config.run_on) as device:
        results = {
            label: measured(case(label, options.batch_size), config, device, rounds=options.rounds)
            for label in options.cases
        }
    Console(width=160).print(table_of(results))
    print(f"batches of {options.batch_size}, {options.precision.value}, load {os.getloadavg()[0]:.1f}")
    if options.out is not None:
        options.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
