"""What a reader must know about a sweep before looking at its numbers."""

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch.version import __version__ as torch_version

from pipelines.config import Run
from pipelines.entry import given_overrides
from pipelines.pareto_config import ParetoConfig
from pipelines.pareto_results import REQUEST_ROWS
from pipelines.stage import read_record
from recsys.core.manifest import Manifest
from recsys.embeddings.method import full_bytes
from recsys.evaluate.pareto import Refusal, Sweep


def empty_sweep(run: Run, config: ParetoConfig, *, num_budgets: int, refusals: Sequence[Refusal]) -> Sweep:
    """The sweep before its first cell.

    Args:
        run: whose data set and model all cells have.
        config: of the sweep.
        num_budgets: pairs of a method and a budget that it meets.
        refusals: the others.
    """
    manifest = Manifest.read(run.stage("ingest"))
    columns = manifest.feature_specs()
    uncompressed = full_bytes(run.config.model.features(columns))
    model = run.values["model"]["_target_"].rpartition(".")[2].removesuffix("Config")
    given = " ".join(given_overrides())
    return Sweep(
        title=f"{model} on {manifest.dataset}",
        command=f"python -m pipelines.pareto {given}",
        facts={
            "uncompressed tables": f"{uncompressed:,} bytes",
            "budgets": ", ".join(f"{ratio:g}×" for ratio in config.ratios),
            "seeds": ", ".join(str(seed) for seed in config.seeds),
            "tables kept full": f"up to {run.config.embedding.full_below} ids",
            "written": time.strftime("%Y-%m-%d"),
            "rows": ", ".join(f"{split.num_rows:,} {name}" for name, split in manifest.splits.items()),
            "trials": _trials(config),
            "training": _training(run),
            "machine": f"{os.cpu_count()} CPU cores, {run.config.train.run_on.device}, torch {torch_version}",
        },
        full_bytes=uncompressed,
        ratios=config.ratios,
        num_trials=len(config.trials),
        request_rows=min(REQUEST_ROWS, run.config.export.num_golden_rows),
        num_cells=num_budgets * len(config.seeds),
        refusals=refusals,
    )


def commits(trainings: Iterable[Path]) -> str:
    """What the code was when these trainings were done: a sweep that goes on for days may have seen several commits."""
    return ", ".join(sorted({str(read_record(folder)["commit"]) for folder in trainings}))


def _trials(config: ParetoConfig) -> str:
    tuned = {"learning rate": config.learning_rates, "regulariser": config.regularizers}
    said = [f"{name} of tables in {values}" for name, values in tuned.items() if values]
    if not said:
        return "1 for each method and budget: nothing is tuned"
    return f"{len(config.trials)} for each method and budget, at seed {config.seeds[0]}: {' and '.join(said)}"


def _training(run: Run) -> str:
    train = run.config.train
    optimizer = train.optimizer
    return (
        f"up to {train.epochs} epochs, batches of {train.batch_size:,}, tables {optimizer.table.value} at "
        f"{optimizer.table_learning_rate:g}, rest {optimizer.dense.value} at {optimizer.dense_learning_rate:g}, "
        f"{train.run_on.precision.value}"
    )
