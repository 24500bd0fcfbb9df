"""Checkpoints in PyTorch's distributed format: written aside, renamed when whole, loadable on any number of ranks."""

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from recsys.core.errors import CheckpointError
from recsys.core.plan import TablePlan

STATE_NAME = "state.json"


def save(folder: Path, tensors: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a checkpoint that replaces the one in `folder`, on all ranks together.

    A crash at any moment leaves the old checkpoint or the new one, never a mixture.

    Args:
        folder: of this checkpoint; its siblings `.partial` and `.old` are used meanwhile.
        tensors: nested state dicts.
        state: JSON values, written by rank 0.
    """
    partial, old = folder.with_suffix(".partial"), folder.with_suffix(".old")
    main = dist.get_rank() == 0
    if main:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    with without_notes():
        dcp.save(tensors, checkpoint_id=partial, no_dist=dist.get_world_size() == 1)
    if main:
        (partial / STATE_NAME).write_text(json.dumps(state, indent=1))
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    dist.barrier()


def find(folder: Path) -> Path | None:
    """The newest whole checkpoint at `folder`: itself, or the old one if a crash came between two renames."""
    for candidate in (folder, folder.with_suffix(".old")):
        if (candidate / STATE_NAME).is_file():
            return candidate
    return None


def read_state(folder: Path, plan: TablePlan) -> dict[str, Any]:
    """Read `state.json` and check that the checkpoint belongs to `plan`.

    Raises:
        CheckpointError: it is missing, damaged, or of another plan.
    """
    path = folder / STATE_NAME
    try:
        state: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}). Delete {folder} and train again.") from error
    if state["plan"] != plan.fingerprint:
        raise CheckpointError(
            f"{folder} holds a checkpoint of embedding plan {state['plan']}, but this run has {plan.fingerprint}. "
            "Use the embedding and model options it was trained with, or another run folder."
        )
    return state


def load(folder: Path, tensors: dict[str, Any], *, alone: bool = False) -> None:
    """Read a checkpoint into `tensors`, in place, whatever number of ranks wrote it.

    Args:
        folder: of the checkpoint.
        tensors: nested state dicts of the same keys and shapes.
        alone: read on this rank only, where the others do not call this.

    Raises:
        CheckpointError: a tensor is missing, of another shape, or the files are damaged.
    """
    alone = alone or not dist.is_initialized() or dist.get_world_size() == 1
    try:
        with without_notes():
            dcp.load(tensors, checkpoint_id=folder, no_dist=alone)
    except (Exception, CheckpointException) as error:  # DCP's wrapper hides the cause's type, and is no Exception
        raise CheckpointError(
            f"{folder}: cannot be loaded into this model ({_reason(error)}). "
            "It was written for another model, or its files are damaged; train again or restore it."
        ) from error


def _reason(error: BaseException) -> str:
    """In one line, what went wrong on the first rank that failed; DCP's own text holds the tracebacks of all."""
    failures = list(getattr(error, "failures", {}).values())
    cause = failures[0][0] if failures else error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"


@contextmanager
def without_notes() -> Iterator[None]:
    """Silence what DCP and TorchRec note each time: a process works alone, TorchRec's tensors are of an older kind."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        warnings.filterwarnings("ignore", message="Please use DTensor", category=FutureWarning)
        yield


def read_tensors(folder: Path, prefix: str) -> dict[str, Tensor]:
    """All tensors below `prefix`, whole and on the CPU, keys without it."""
    reader = dcp.FileSystemReader(folder)
    entries = reader.read_metadata().state_dict_metadata
    tensors = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype)
        for key, entry in entries.items()
        if key.startswith(prefix) and isinstance(entry, TensorStorageMetadata)
    }
    load(folder, tensors, alone=True)
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
