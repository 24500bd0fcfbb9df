"""Compile a serving model to TorchScript, prove what it is made of, write it, and load it again."""

import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recsys.core.errors import DataError, ParityError

ALLOWED_NAMESPACES = frozenset({"aten", "prim", "quantized"})

BESIDE_TENSORS = 1 << 24
"""More than code, names and padding take."""


def script_model(model: nn.Module) -> torch.jit.ScriptModule:
    """Compile an evaluation-mode model.

    Raises:
        ParityError: the compiled model holds an operator that stock libtorch does not have.
    """
    with warnings.catch_warnings():
        # Upstream points to torch.export, which the C++ and Triton servers of this contract do not load yet.
        warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated.*")
        scripted: torch.jit.ScriptModule = torch.jit.script(model.eval())
    assert_aten_only(scripted)
    return scripted


def assert_aten_only(scripted: torch.jit.ScriptModule) -> None:
    """Check every operator of every method of the model and its parts.

    Raises:
        ParityError: one lies outside `aten`, `prim` and `quantized`, so a server with torch alone could not load it.
    """
    foreign = sorted({kind for kind in operator_kinds(scripted) if kind.split("::")[0] not in ALLOWED_NAMESPACES})
    if foreign:
        raise ParityError(
            f"the exported model uses {foreign}, which stock libtorch does not have, so servers could not load it. "
            "Write the remap, combiner, head or encoder that uses them with torch operators only."
        )


def operator_kinds(scripted: torch.jit.ScriptModule) -> set[str]:
    """Names such as `aten::add` of all operators, those of nested blocks and sub-modules included."""
    kinds: set[str] = set()
    for module in scripted.modules():
        compiled: Any = module._c  # what a ScriptModule wraps; torch has no stubs for it
        for name in compiled._method_names():
            kinds.update(_graph_kinds(compiled._get_method(name).inlined_graph))
    return kinds


def _graph_kinds(graph: torch.Graph) -> Iterator[str]:
    waiting = [*graph.nodes()]
    while waiting:
        node = waiting.pop()
        yield node.kind()
        for block in node.blocks():
            waiting.extend(block.nodes())
        for name in node.attributeNames():
            if node.kindOf(name) == "g":  # a graph of its own: fork, closure, fusion group
                yield from _graph_kinds(node.g(name))


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


def load_scripted(path: Path) -> torch.jit.ScriptModule:
    """Load an exported model onto the CPU.

    Raises:
        DataError: the file is absent or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Export a bundle first, or point to the folder of one.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.load.* is deprecated.*")
            scripted: torch.jit.ScriptModule = torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable TorchScript file, truncated or damaged ({str(error).splitlines()[0]}). "
            "Export again, or copy the bundle again."
        ) from error
    return scripted


def answered(model: nn.Module, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits and probabilities of a scripted model, or outputs and predictions.

    Raises:
        DataError: it refuses the features; without the lines of its code.
    """
    try:
        outputs, answers = model(features)
    except torch.jit.Error as error:
        raised = [line for line in str(error).splitlines() if "Error: " in line or "Exception: " in line]
        reason = (raised[-1] if raised else str(error)).split(": ", 1)[-1].strip()
        raise DataError(f"the model refuses them ({reason}). Correct these rows.") from error
    return outputs, answers
