"""How every stage starts: Hydra composes, the configuration is checked, errors of the user are told without a traceback."""

import functools
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from pipelines.config import Run, load
from recsys.core.errors import RecsysError

CONFIG_FOLDER = str(Path(__file__).resolve().parent.parent / "conf")
QUIET = ("torchrec", "torch", "fbgemm_gpu", "matplotlib")


def stage_main(work: Callable[[Run], None]) -> Callable[[], None]:
    """Make a command of a stage function."""

    @hydra.main(version_base="1.3", config_path=CONFIG_FOLDER, config_name="config")
    @functools.wraps(work)
    def command(composed: DictConfig) -> None:
        set_up_logging()
        try:
            work(load(composed))
        except RecsysError as error:
            Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {_plain(str(error))}")
            sys.exit(1)

    return command  # type: ignore[no-any-return]


def set_up_logging() -> None:
    """Plain lines on standard error; libraries speak up only from errors on."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    main = int(os.environ.get("RANK", "0")) == 0
    for name in ("recsys", "pipelines", "__main__"):
        logging.getLogger(name).setLevel(logging.INFO if main else logging.WARNING)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger().addFilter(lambda record: record.name != "root" or record.levelno >= logging.ERROR)


def launched_by_torchrun() -> bool:
    """True in a process that torchrun started."""
    return "WORLD_SIZE" in os.environ


def relaunch(module: str, num_processes: int) -> None:
    """Run this command's stage as `num_processes` ranks on this machine.

    Raises:
        RecsysError: a rank failed; it has told why.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    overrides = list(HydraConfig.get().overrides.task)
    result = subprocess.run([*torchrun, "-m", module, *overrides], check=False)
    if result.returncode:
        raise RecsysError(f"{module} failed on one of {num_processes} ranks (exit status {result.returncode}); its message is above.")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
