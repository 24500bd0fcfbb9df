"""A small run that many tests share: what to override, how to call a stage in this process or in one of its own."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from pipelines import compare, compress, entry, evaluate, export, ingest, predict, quality, search, train
from pipelines import run as everything
from pipelines.config import Run, load
from pipelines.entry import CONFIG_FOLDER

COMMANDS = {
    "ingest": ingest,
    "train": train,
    "evaluate": evaluate,
    "export": export,
    "predict": predict,
    "compress": compress,
    "compare": compare,
    "search": search,
    "quality": quality,
    "run": everything,
}
STAGES = ("ingest", "train", "evaluate", "export")
MODEL = (
    "model=dcnv2",
    "model.embedding_dim=4",
    "model.hidden_units=[16]",
    "model.num_cross_layers=1",
    "model.batch_norm=false",
    "model.dropout=0",
    "train.epochs=1",
    "train.batch_size=128",
    "train.run_on.num_threads=1",
    "export.num_parity_rows=300",
    "export.num_golden_rows=50",
    "name=small",
)
SMALL = (
    *MODEL,
    "dataset=synthetic",
    "dataset.num_rows=3000",
    "dataset.num_numeric=3",
    "dataset.num_categorical=4",
    "dataset.max_cardinality=200",
)
"""Overrides of a run that takes about two seconds."""


def composed(*overrides: str) -> DictConfig:
    """What Hydra makes of `conf/` with these overrides, as a command would see it."""
    with initialize_config_dir(version_base="1.3", config_dir=CONFIG_FOLDER):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        # ${hydra:…} resolves through HydraConfig; it must not outlive this call, or a stage would take it for its own.
        plain = OmegaConf.create({key: config[key] for key in config if key != "hydra"})
        HydraConfig.instance().cfg = None
    return plain


def make_run(runs: Path, *overrides: str) -> Run:
    """A checked configuration with results below `runs`."""
    return load(composed(*overrides, f"runs={runs}"))


def do(stage: str, runs: Path, *overrides: str) -> Run:
    """Do one stage (or `run`, all of them) in this process."""
    run = make_run(runs, *overrides)
    COMMANDS[stage].work(run)
    return run


def command_line(stage: str, runs: Path, *overrides: str) -> int:
    """Exit status of the command, called in this process."""
    with pytest.MonkeyPatch.context() as patch:
        # The command's own logging would outlive it here.
        patch.setattr(entry, "set_up_logging", lambda: None)
        patch.setattr(sys, "argv", [f"pipelines.{stage}", *overrides, f"runs={runs}"])
        patch.setenv("HYDRA_FULL_ERROR", "1")
        try:
            COMMANDS[stage].main()
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


def command(stage: str, runs: Path, *overrides: str) -> list[str]:
    """The command line of a stage."""
    return [sys.executable, "-m", f"pipelines.{stage}", *overrides, f"runs={runs}"]


def environment() -> dict[str, str]:
    """Of a process that shares the machine with others."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def call(stage: str, runs: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run a stage as a user would, in a process of its own."""
    return subprocess.run(
        command(stage, runs, *overrides), capture_output=True, text=True, env=environment(), check=False, timeout=300
    )


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path; locks, which hold nothing, left out."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def finished(runs: Path) -> set[Path]:
    """Folders that look finished to a reader: those with a stage's record that are not aside."""
    return {
        path.parent.relative_to(runs) for path in runs.rglob("stage.json") if not path.parent.name.endswith(".partial")
    }
