"""Rows per second of the loader beside what the fastest model trains on, of one-hot and of multi-valued rows.

    python -m tools.bench_loader [CASE …] [--rounds 9] [--threads 2] [--precision bfloat16] [--out FILE]

A case is `MODEL@DATA` of a data set with files, as `tools.bench_train` has them; by default `lr`, the model with the
least work a row, on Criteo's sample, on generated rows with a multi-valued column, and on generated histories: three
lists of 25 events on average. The loader reads the files of an epoch and makes its
batches in this thread; it and a training step take turns within every round, and medians of all rounds are told. Run it
alone on the machine.
"""

import statistics
from collections.abc import Sequence

import torch
from rich.table import Table

from pipelines.entry import set_up_logging
from recsys.core.errors import ConfigError
from recsys.train.config import TrainConfig
from recsys.train.session import process_group
from tools.bench_train import Case, case, parts
from tools.case_options import config_of, parser_of, tell
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
    options = parser_of(__doc__, CASES).parse_args(arguments)
    set_up_logging()
    config = config_of(options)
    with process_group(config.run_on) as device:
        results = {
            label: measured(case(label, options.batch_size), config, device, rounds=options.rounds)
            for label in options.cases
        }
    tell(table_of(results), results, options)


if __name__ == "__main__":
    main()
