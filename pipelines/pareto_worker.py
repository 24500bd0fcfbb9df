"""Each cell in a process of its own, forked from one that has imported everything: no start of Python, no leftovers.

So the peak memory of a training is its own, and a cell that crashes or is killed for memory takes nothing with it.
"""

import logging
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from pipelines import evaluate, export, ingest, pareto_validate, search, train
from pipelines.config import Run
from pipelines.entry import set_up_logging
from pipelines.pareto_cells import compose_run
from recsys.core.errors import RecsysError

STAGES: dict[str, Callable[[Run], None]] = {
    "ingest": ingest.work,
    "search": search.work,
    "train": train.work,
    "validate": pareto_validate.work,
    "evaluate": evaluate.work,
    "export": export.work,
}


class Worker:
    """Runs stages of cells, one at a time."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        # Fork only a process that has never computed: threads of torch and Polars would not survive it.
        self._context.set_forkserver_preload([__name__])

    def do(self, overrides: Sequence[str], stages: Sequence[str], log: Path) -> str:
        """Run stages; returns why they failed, or nothing.

        Args:
            overrides: of the run.
            stages: names of `STAGES`, in order.
            log: file that takes all that the process prints, after what is there.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        receive, send = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(list(overrides), list(stages), str(log), send))
        process.start()
        send.close()
        try:
            message: str = receive.recv()
        except EOFError:
            process.join()
            message = f"the process ended with status {process.exitcode} (-9: killed, often for want of memory)."
        finally:
            if sys.exc_info()[0] is not None:
                process.terminate()
            process.join()
            receive.close()
        return message


def _work(overrides: list[str], stages: list[str], log: str, send: Connection) -> None:
    """The child's part: everything printed goes into the log, the outcome to the parent."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with Path(log).open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    set_up_logging()
    try:
        run = compose_run(overrides)
        for stage in stages:
            STAGES[stage](run)
        message = ""
    except RecsysError as error:
        message = str(error)
        logging.getLogger(__name__).exception("failed")
    except Exception as error:  # noqa: BLE001  whatever it was, the other cells go on
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
    send.send(message)


def _end_with_parent() -> None:
    """Do not outlive the sweep, which may be killed: the next one wants to go on with this cell."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
