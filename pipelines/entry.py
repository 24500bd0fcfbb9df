"""How every stage starts: Hydra composes, the configuration is checked, errors of the user are told without a traceback."""

import difflib
import functools
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
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
            refuse(str(error))

    @functools.wraps(work)
    def start() -> None:
        # Hydra then raises what it finds wrong, so that it is told here; what is left is a bug and shows all of its traceback.
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
        try:
            command()
        except (HydraException, OmegaConfBaseException) as error:
            refuse(told(error, sys.argv[1:]))

    return start


def refuse(message: str) -> NoReturn:
    """Tell the user what is wrong and end with status 1."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {_plain(message)}")
    sys.exit(1)


def told(error: Exception, overrides: Sequence[str]) -> str:
    """What Hydra could not compose: the key, what was given, and what would do."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if not isinstance(cause, OmegaConfBaseException) or not isinstance(cause.parent_node, DictConfig):
        given = f"{error.override}: " if isinstance(error, OverrideParseException) else ""
        return given + " ".join(str(error).partition("Config search path")[0].split())
    known = [str(key) for key in cause.parent_node if key not in ("_target_", "hydra")]
    given = next((text for text in overrides if text.lstrip("+~").split("=")[0] == cause.full_key), cause.full_key)
    near = difflib.get_close_matches(str(cause.key), known, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{given}: no such key. {hint}There are {sorted(known)}."


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
        raise RecsysError(
            f"{module} failed on one of {num_processes} ranks (exit status {result.returncode}); its message is above."
        )


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
