"""A stage reads folders and writes one: aside, under a lock, renamed when whole, never twice for the same inputs."""

import hashlib
import json
import logging
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch.distributed as dist

from pipelines.disk import is_full, no_space_told
from pipelines.lock import locked
from recsys.core.errors import RecsysError, StageError

logger = logging.getLogger(__name__)

STAGE_NAME = "stage.json"


@dataclass(frozen=True, kw_only=True)
class StageKey:
    """What a stage's result depends on. Equal keys, equal results."""

    stage: str
    config: Mapping[str, Any]  # plain values
    inputs: Mapping[str, str] = field(default_factory=dict)  # fingerprint by name
    resolved: Mapping[str, Any] = field(default_factory=dict)  # the whole configuration, for the record; not compared
    worth_keeping: str = ""  # pattern of files that make an attempt that stopped worth going on with; not compared
    shared: bool = False  # other runs want the same result: wait for whoever is making it; not compared

    def values(self) -> dict[str, Any]:
        """As JSON values, comparable with those read back from a file."""
        plain: dict[str, Any] = json.loads(
            json.dumps({"stage": self.stage, "config": self.config, "inputs": self.inputs})
        )
        return plain


def fingerprint(folder: Path) -> str:
    """Fingerprint of a finished stage folder.

    Raises:
        StageError: it is missing or unfinished.
    """
    found: str = read_record(folder)["fingerprint"]
    return found


def read_record(folder: Path) -> dict[str, Any]:
    """What `stage.json` of a finished folder says: key, commit, seconds, versions.

    Raises:
        StageError: it is missing or unfinished.
    """
    record = _read(folder)
    if record is None or not record.get("finished"):
        state = "is unfinished" if folder.exists() or _aside(folder).exists() else "does not exist"
        raise StageError(
            f"{folder} {state}. Run the stage that writes it first (`python -m pipelines.run` runs all of them)."
        )
    return record


def check_made_with(folder: Path, *, config: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Refuse a finished folder that was made with other options or inputs than these (it may have had more).

    Raises:
        StageError: naming the first that differs.
    """
    record = read_record(folder)
    for name, wanted in (("config", config), ("inputs", inputs)):
        found = {key: record[name].get(key) for key in wanted}
        plain = json.loads(json.dumps(wanted))
        if found != plain:
            raise StageError(
                f"{folder} was made with other options ({_difference({name: found}, {name: plain})}). Give those it "
                "was made with, or choose another name=…, or make it anew: "
                f"`python -m pipelines.{folder.name}` with overwrite=true."
            )


@contextmanager
def stage(folder: Path, key: StageKey, *, overwrite: bool = False) -> Iterator[Path | None]:
    """Do a stage's work once, on all ranks.

    Yields:
        The folder to write into, which may hold an interrupted attempt of the same key; None if `folder` is done.

    Raises:
        StageError: another process works on it, it holds something else, or the disk is full.
    """
    main = not dist.is_initialized() or dist.get_rank() == 0
    with no_space_told(key.stage, folder), locked(folder, wait=key.shared) if main else _nothing():
        todo = _agreed(lambda: _prepare(folder, key, overwrite=overwrite), main=main)
        if not todo:
            if main:
                logger.info("%s: unchanged, nothing to do (%s)", key.stage, folder)
            yield None
            return
        started = time.time()
        with _dropped_if_refused(_aside(folder), key) if main else _nothing():
            yield _aside(folder)
            _agreed(lambda: _finish(folder, key, time.time() - started), main=main)


def _aside(folder: Path) -> Path:
    return folder.with_name(folder.name + ".partial")


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _dropped_if_refused(aside: Path, key: StageKey) -> Iterator[None]:
    """Leave nothing half-written behind an error that the user is told of; a bug's remains may tell what it was."""
    try:
        yield
    except BaseException as error:  # torch.distributed.checkpoint's own exception is no Exception
        if (isinstance(error, RecsysError) or is_full(error)) and not _is_worth_keeping(aside, key):
            shutil.rmtree(aside, ignore_errors=True)
        raise


def _is_worth_keeping(aside: Path, key: StageKey) -> bool:
    return bool(key.worth_keeping) and any(aside.glob(key.worth_keeping))


def _agreed(work: Callable[[], Any], *, main: bool) -> Any:
    """Do `work` on the main rank and give all ranks its result, or its error."""
    result: list[Any] = [None, None]
    if main:
        try:
            result[0] = work()
        except Exception as error:
            if not _many():
                raise
            result[1] = error
    if _many():
        dist.broadcast_object_list(result)
    if result[1] is not None:
        raise result[1]
    return result[0]


def _many() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1


def _prepare(folder: Path, key: StageKey, *, overwrite: bool) -> bool:
    """True if there is work to do; the folder aside is then ready for it."""
    done = _read(folder)
    if done is not None and done.get("finished") and _same(done, key):
        return False
    if folder.exists() and not overwrite:
        changed = _difference(done, key.values()) if done is not None else "it was not written by a stage"
        raise StageError(
            f"{folder} holds another result ({changed}). Choose another name=…, or set overwrite=true to replace it."
        )
    aside = _aside(folder)
    started = _read(aside)
    if started is not None and _same(started, key):
        logger.info("%s: going on with the interrupted run in %s", key.stage, aside)
        return True
    if started is not None and _is_worth_keeping(aside, key) and not overwrite:
        raise StageError(
            f"{aside} holds an interrupted run of other options ({_difference(started, key.values())}). Finish it with "
            "those, choose another name=…, or set overwrite=true to throw it away."
        )
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    (aside / STAGE_NAME).write_text(json.dumps({**key.values(), "finished": False}, indent=1))
    return True


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / STAGE_NAME).read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return found


def _same(found: dict[str, Any], key: StageKey) -> bool:
    return {name: found.get(name) for name in ("stage", "config", "inputs")} == key.values()


def _finish(folder: Path, key: StageKey, seconds: float) -> None:
    aside = _aside(folder)
    # Its fingerprint is of the key and of what the stage says about its result, so that equal work gives equal inputs.
    record = {
        **key.values(),
        "resolved": key.resolved,
        "finished": True,
        "fingerprint": _digest(aside, key),
        "commit": _commit(),
        "seconds": round(seconds, 3),
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": _versions(),
    }
    temporary = aside / (STAGE_NAME + ".tmp")
    temporary.write_text(json.dumps(record, indent=1))
    temporary.rename(aside / STAGE_NAME)
    # Moved away before it is deleted: half of it could still look finished.
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    logger.info("%s: done in %.1f s (%s)", key.stage, seconds, folder)


def _digest(aside: Path, key: StageKey) -> str:
    digest = hashlib.sha256(json.dumps(key.values(), sort_keys=True).encode())
    for name in ("manifest.json", "plan.json", "metrics.json"):
        if (aside / name).is_file():
            digest.update((aside / name).read_bytes())
    return digest.hexdigest()[:16]


def _difference(found: Any, wanted: Any, where: str = "") -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in sorted({*found, *wanted} & {*wanted, "stage", "config", "inputs"}):
            if found.get(name) != wanted.get(name):
                return _difference(
                    found.get(name), wanted.get(name), f"{where}.{name}".removeprefix(".config").lstrip(".")
                )
    return f"{where or 'key'} is {found!r} there, {wanted!r} here"


def _commit() -> str:
    """Commit of the code, with `-dirty` if it was changed since; empty outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _versions() -> dict[str, str]:
    found = {}
    for name in ("torch", "torchrec", "fbgemm-gpu-cpu", "fbgemm-gpu", "polars"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
