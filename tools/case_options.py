"""What benchmarks of cases and rounds have in common: their command lines, and how they tell what they found."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from recsys.train.config import DeviceConfig, Precision, TrainConfig


def parser_of(description: str | None, cases: Sequence[str]) -> argparse.ArgumentParser:
    """The command line of what is measured by case and round; `cases` unless others are given."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=cases)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--precision", type=Precision, default=Precision.BFLOAT16)
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    return parser


def config_of(options: argparse.Namespace) -> TrainConfig:
    """Threads and precision of such a command line."""
    return TrainConfig(run_on=DeviceConfig(num_threads=options.threads, precision=options.precision))


def tell(table: Table, results: dict[str, dict[str, float]], options: argparse.Namespace) -> None:
    """Print the figures and what they were measured under; write them where asked."""
    Console(width=160).print(table)
    print(f"batches of {options.batch_size}, {options.precision.value}, load {os.getloadavg()[0]:.1f}")
    if options.out is not None:
        options.out.write_text(json.dumps(results, indent=1))
