"""How every stage starts: Hydra composes, the configuration is checked, user's errors are told without a traceback."""

import difflib
import functools
import json
import logging
import os
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import NoReturn, cast

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from torch.distributed import TCPStore
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pipelines.config import Run, RunConfig, load
from pipelines.whereabouts import parts_of, placed
from recsys.core.component import load_class
from recsys.core.errors import ConfigError, RecsysError
from recsys.core.jsonable import TARGET, build_config, has_field

CONFIG_FOLDER = str(Path(__file__).resolve().parent.parent / "conf")
OWN_ROWS = (
    "For rows of your own: `python -m pipelines.infer infer.files=[…] infer.output=conf/dataset/mine.yaml` writes the "
    "config that dataset=mine takes."
)
OF_RETRIEVAL = "retrieval=default brings retrieval/model; a trained one (not ease, gf_cf, …) brings retrieval/loss."
QUIET = ("torchrec", "torch", "fbgemm_gpu", "matplotlib")
RUN_FILE = "RECSYS_RUN_FILE"
"""Environment variable of started ranks: path of a JSON file with the values of their run."""


def stage_main(work: Callable[[Run], None]) -> Callable[[], None]:
    """Make a command of a stage function."""
    failed: list[str] = []
    composed = _composed_command(work, failed)

    @functools.wraps(work)
    def start() -> None:
        # Hydra then raises what it finds wrong, so that it is told here; what is left is a bug and shows its traceback.
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
        failed.clear()
        try:
            if RUN_FILE in os.environ:
                set_up_logging()
                work(given_run())
            else:
                without_null_groups()
                with_left_out_keys(composed)
        except (HydraException, OmegaConfBaseException) as error:
            refuse(told(error, sys.argv[1:]))
        except yaml.YAMLError as error:
            refuse(f"a yaml of the configuration cannot be read: {' '.join(str(error).split())}. Correct it there.")
        except RecsysError as error:
            if not failed:
                refuse(str(error))
            refuse(f"{len(failed)} job(s) of the sweep failed, told above: {'; '.join(failed)}. The others are done.")
        if launched_by_torchrun():
            leave()

    return start


def given_overrides() -> list[str]:
    """What the command line sets; nothing below no command of Hydra's."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _composed_command(work: Callable[[Run], None], failed: list[str]) -> Callable[[], None]:
    """A stage function on what Hydra composes of the command line; failed jobs of a sweep are appended to `failed`."""

    @hydra.main(version_base="1.3", config_path=CONFIG_FOLDER, config_name="config")
    @functools.wraps(work)
    def command(composed: DictConfig) -> None:
        set_up_logging()
        try:
            work(load(composed))
        except Exception as error:
            swept, known = HydraConfig.get().mode == RunMode.MULTIRUN, isinstance(error, RecsysError)
            if known and not swept:
                refuse(placed(error))
            if swept:  # Hydra runs the other jobs of the sweep, then raises what the first failed one raised, alone
                tell(placed(error)) if known else logging.getLogger(__name__).exception("a job of the sweep failed:")
                failed.append(HydraConfig.get().job.override_dirname)
            raise

    return cast(Callable[[], None], command)  # Hydra types it as Any


def given_run() -> Run:
    """The run that `relaunch` hands to this rank: what it says holds, not what the command line composes.

    Raises:
        ConfigError: a value does not fit.
    """
    values = json.loads(Path(os.environ[RUN_FILE]).read_text())
    return Run(build_config(RunConfig, values, key=""), values)


@contextmanager
def _handed(run: Run) -> Iterator[None]:
    """Processes that start meanwhile find this run."""
    with tempfile.TemporaryDirectory(prefix="recsys_") as folder:
        path = Path(folder) / "run.json"
        path.write_text(json.dumps(run.values))
        os.environ[RUN_FILE] = str(path)
        try:
            yield
        finally:
            del os.environ[RUN_FILE]


def without_null_groups() -> None:
    """Let `group=null` on the command line choose nothing, as a defaults list of a yaml writes it.

    Hydra's word for it is `~group`; of null it raises a bare ValueError.
    """
    for place, text in enumerate(sys.argv):
        group, _, value = text.partition("=")
        if place and value == "null" and group and (Path(CONFIG_FOLDER) / group).is_dir():
            sys.argv[place] = f"~{group}"


def with_left_out_keys(command: Callable[[], None]) -> None:
    """Call `command`; keys that the class of an option has, but a user's yaml leaves out, count as if they stood there.

    Hydra takes a key that no yaml names for a mistake, and wants `+` in front of one that is none.
    """
    while True:
        try:
            return command()
        except (HydraException, OmegaConfBaseException) as error:
            left_out = next((i for i, text in enumerate(sys.argv) if i and is_left_out(error, text)), None)
            if left_out is None:
                raise
        sys.argv[left_out] = "+" + sys.argv[left_out]


def is_left_out(error: Exception, override: str) -> bool:
    """True if `error` is about this override, and the class that it belongs to has what the yaml lacks."""
    cause, (key, _, value) = error.__cause__, override.partition("=")
    if not isinstance(cause, OmegaConfBaseException) or not isinstance(cause.parent_node, DictConfig):
        return False
    path = parts_of(str(cause.full_key))
    given, missing = f"{key}.", f"{'.'.join(path)}."
    if not (given.startswith(missing) or (value.startswith("{") and missing.startswith(given))):
        return False
    root = cause.parent_node._get_root()
    for depth in range(len(path) - 1, 0, -1):
        where = ".".join(path[:depth])
        node = OmegaConf.select(root, where)
        if isinstance(node, DictConfig) and TARGET in node:
            return has_field(load_class(node[TARGET], key=f"{where}.{TARGET}"), path[depth:])
    return False


def leave() -> None:
    """End a rank whose work is done and written.

    Not through the interpreter's own end: torch's communication threads may still let go of Python objects then, which
    now and then aborts the process ("terminate called without an active exception") and fails the whole run.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def tell(message: str) -> None:
    """Tell the user what is wrong; what all ranks find wrong is told by the first of them alone."""
    if not is_first_to_tell(message):
        return
    rank = f" on rank {os.environ['RANK']}" if launched_by_torchrun() else ""
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error{rank}:[/] {_plain(message)}")


def is_first_to_tell(message: str) -> bool:
    """False if another rank has told this; true where the ranks cannot ask one another."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True):
        return True
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        # The launcher's own store: it is there before the ranks have met, and after some of them are gone.
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=10))
        return store.add(f"recsys/told/{attempt}/{message}", 1) == 1
    except (RuntimeError, KeyError):
        return True


def refuse(message: str) -> NoReturn:
    """Tell the user what is wrong and end with status 1."""
    tell(message)
    sys.exit(1)


def told(error: Exception, overrides: Sequence[str]) -> str:
    """What Hydra could not compose: the key, what was given, and what would do."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if not isinstance(cause, OmegaConfBaseException) or not isinstance(cause.parent_node, DictConfig):
        if isinstance(error, OverrideParseException):
            key, _, value = str(error.override).partition("=")
            return f"{error.override}: Hydra's grammar cannot read this value. Quote it twice: '{key}=\"{value}\"'"
        text = " ".join(str(error).partition("Config search path")[0].split())
        if text.startswith("Could not override 'retrieval/"):
            return f"{text.partition(' To append')[0]} {OF_RETRIEVAL}"
        return f"{text}. {OWN_ROWS}" if "'dataset/" in text else text
    known = {str(key) for key in cause.parent_node if key not in (TARGET, "hydra")}
    if TARGET in cause.parent_node:
        with suppress(ConfigError):  # what is wrong with the class itself is not what this is about
            known |= set(load_class(cause.parent_node[TARGET]).__dataclass_fields__)
    given = next((text for text in overrides if text.lstrip("+~").split("=")[0] == cause.full_key), str(cause.full_key))
    near = difflib.get_close_matches(str(cause.key), known, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    own = "" if near or not str(cause.full_key).startswith("dataset.") else f" {OWN_ROWS}"
    return f"{given}: no such key. {hint}There are {sorted(known)}.{own}"


def set_up_logging() -> None:
    """Plain lines on standard error; libraries speak up only from errors on."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    for name in ("recsys", "pipelines", "__main__"):
        logging.getLogger(name).setLevel(logging.INFO if is_first_rank() else logging.WARNING)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torchrec|torch\.distributed")  # their own calls
    logging.getLogger().addFilter(lambda record: record.name != "root" or record.levelno >= logging.ERROR)


def launched_by_torchrun() -> bool:
    """True in a process that torchrun started."""
    return "WORLD_SIZE" in os.environ


def is_first_rank() -> bool:
    """True on rank 0 of those that torchrun started, and where there are no others."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def without_other_ranks() -> Iterator[None]:
    """Work as if torchrun had not started this process: a process group that is made meanwhile has it alone."""
    hidden = {name: os.environ.pop(name) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def relaunch(module: str, run: Run) -> None:
    """Run a stage of `run` on the number of ranks that it asks for, on this machine, as torchrun would.

    Args:
        module: whose `main` each rank calls.
        run: may be another than the command line's, as that which another one was trained as.

    Raises:
        RecsysError: a rank failed; it has told why.
    """
    num_processes = run.config.train.run_on.num_processes
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // num_processes, 1)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the ranks speak for themselves
    # What `torchrun --standalone` does, without another start of Python and without its traceback.
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        with _handed(run):
            elastic_launch(config, sys.executable)("-m", module)
    except ChildFailedError as error:
        raise RecsysError(
            f"{module} failed on rank {error.get_first_failure()[0]} of {num_processes}; its message is above."
        ) from error


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
