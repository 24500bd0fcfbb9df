"""Write a TorchScript file without holding it in memory, and with an error, not an abort, where the disk is full."""

import os
from pathlib import Path

import torch

BESIDE_TENSORS = 1 << 24
"""More than code, names and padding take."""


def write_scripted(scripted: torch.jit.ScriptModule, path: Path) -> None:
    """Write a compiled model.

    `save_to_buffer` holds the file three times beside the model. `save` holds nothing, but where a write fails its
    destructor ends the process (std::terminate, torch 2.13): so the space is asked for first.

    Raises:
        OSError: the file cannot be written, for want of space as a rule.
    """
    num_bytes = sum(tensor.nbytes for tensor in (*scripted.parameters(), *scripted.buffers()))
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, num_bytes + BESIDE_TENSORS)
    path.unlink()  # and its space is free again: torch begins its file anew
    scripted.save(str(path))
