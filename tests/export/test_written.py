"""Files of compiled models: the model, no copy of it in memory, errors of the disk."""

import errno
import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from recsys.core.memory import peak_mib
from recsys.export.script import load_scripted, script_model, write_scripted

NUM_VALUES = 50_000_000
MIB = NUM_VALUES * 4 / 2**20


class Rows(nn.Module):
    rows: Tensor

    def __init__(self, num_values: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.arange(num_values, dtype=torch.float32))

    def forward(self, ids: Tensor) -> Tensor:
        return self.rows.index_select(0, ids)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    write_scripted(script_model(Rows(100_000)), tmp_path / "model.pt")
    assert load_scripted(tmp_path / "model.pt")(torch.tensor([0, 99_999])).tolist() == [0, 99_999]
    write_scripted(script_model(Rows(7)), tmp_path / "model.pt")
    assert load_scripted(tmp_path / "model.pt").rows.tolist() == list(range(7)), "the shorter file replaces the longer"


def added_mib(path: Path) -> float:
    """How much the peak memory of this process grows by writing."""
    scripted = script_model(Rows(NUM_VALUES))
    before = peak_mib()
    write_scripted(scripted, path)
    return peak_mib() - before


def test_memory_holds_no_copy_of_the_file(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(added_mib, tmp_path / "model.pt").result() < MIB / 4
    assert (tmp_path / "model.pt").stat().st_size > MIB * 2**20


def test_errors_of_the_disk_are_errors(tmp_path: Path) -> None:
    scripted = script_model(Rows(1_000_000))
    with pytest.raises(FileNotFoundError, match="absent"):
        write_scripted(scripted, tmp_path / "absent" / "model.pt")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="too large") as told:
            write_scripted(scripted, tmp_path / "model.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert told.value.errno == errno.EFBIG
