"""Where the shards of a pass are worked on: in this process, or as tasks of a Ray cluster."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import chdir, contextmanager
from enum import Enum
from itertools import groupby, islice
from pathlib import Path
from types import ModuleType

import polars as pl

from recsys.core.errors import ConfigError, RecsysError
from recsys.data.dataset import Shard

logger = logging.getLogger(__name__)

Task = Callable[[Sequence[Shard]], Iterable[tuple[int, pl.DataFrame]]]
"""Works on consecutive shards of one file; (number, rows left out) of each that is done."""

RUN_SHARDS = 8
"""Shards of a Ray task, at most: each has to find its first row, which in text means to pass over those before."""


class Launcher(Enum):
    """Who works on shards."""

    PROCESS = "process"  # this process, one after the other
    RAY = "ray"  # tasks of the cluster at RAY_ADDRESS, else of one started here; all machines see the same folders


def launched(
    task: Task, shards: Sequence[Shard], launcher: Launcher, num_workers: int
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Do a pass over shards, in any order.

    Args:
        num_workers: tasks at a time; 0: as many as the cluster has CPUs.
    Yields:
        What `task` does, as it is done.

    Raises:
        RecsysError: the first one that a task raises; the others are stopped.
    """
    if launcher is Launcher.PROCESS:
        for run in runs_of(shards, longest=len(shards)):
            yield from task(run)
    elif shards:
        with _cluster(num_workers) as ray:
            num_tasks = num_workers or int(ray.cluster_resources().get("CPU", 1))
            longest = max(1, min(RUN_SHARDS, len(shards) // (2 * num_tasks)))
            yield from _on_ray(ray, task, runs_of(shards, longest=longest), num_tasks)


def runs_of(shards: Sequence[Shard], *, longest: int) -> list[list[Shard]]:
    """Shards in runs of consecutive ones of one file, at most `longest` each."""
    numbered = groupby(enumerate(shards), key=lambda each: (each[1].file, each[1].number - each[0]))
    together = [[shard for _, shard in group] for _, group in numbered]
    return [run[i : i + longest] for run in together for i in range(0, len(run), longest)]


def _on_ray(
    ray: ModuleType, task: Task, runs: Iterable[list[Shard]], num_tasks: int
) -> Iterator[tuple[int, pl.DataFrame]]:
    left, folder = iter(runs), Path.cwd()

    def work(todo: Task, run: list[Shard]) -> list[tuple[int, pl.DataFrame]]:
        with chdir(folder):  # relative paths are those of the driver
            return list(todo(run))

    # Put once: it holds the split of every row, and the vocabularies.
    submit, shipped = ray.remote(work).remote, ray.put(task)
    waiting = [submit(shipped, run) for run in islice(left, num_tasks)]
    try:
        while waiting:
            (done,), waiting = ray.wait(waiting)
            found = ray.get(done)
            waiting += [submit(shipped, run) for run in islice(left, 1)]
            yield from found
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RecsysError):
            raise error.cause from None
        raise
    finally:
        for reference in waiting:
            ray.cancel(reference)


@contextmanager
def _cluster(num_workers: int) -> Iterator[ModuleType]:
    """Ray, connected; a cluster that was started here is stopped."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "ingest.launcher=ray: Ray is not installed. Install it, `pip install -c constraints.txt '.[ray]'`, or set "
            "ingest.launcher=process."
        ) from error
    connected = ray.is_initialized()
    if not connected:
        ray.init(log_to_driver=False, include_dashboard=False, num_cpus=num_workers or None)
    try:
        yield ray
    finally:
        if not connected:
            ray.shutdown()
