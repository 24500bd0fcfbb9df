"""Tests marked `gpu` skip where there is no CUDA device, and say why."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from recsys.train.config import DeviceConfig
from recsys.train.session import process_group

HERE = Path(__file__).parent


def reason_to_skip() -> str | None:
    if torch.cuda.is_available():
        return None
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
    return f"torch {torch.__version__} ({build}) sees no CUDA device; `make install-cuda` on a machine with a GPU"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = reason_to_skip()
    for item in items:
        if HERE not in item.path.parents or item.get_closest_marker("gpu") is None:
            continue
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
        # The CUDA builds of three releases warn of different things of their own: shown here, not taken for failures.
        item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture
def cuda() -> Iterator[torch.device]:
    """The GPU, with a process group of one rank on it: nccl for its tensors, gloo for the host's."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # TF32 would hide small differences behind large ones
    with process_group(DeviceConfig(device="cuda")) as device:
        yield device
    torch.set_float32_matmul_precision(precision)
