"""The benchmark of training steps, on next to nothing."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

from recsys.train.config import TrainConfig
from tools.bench_train import case, head_parts, main
from tools.fuxictr_setup import PEER_VENV, READY_NAME
from tools.peer_step import has_peer, peer_step

PEER = PEER_VENV / READY_NAME


def test_every_part_of_a_step_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "figures.json"
    arguments = ["--rounds", "1", "--threads", "1", "--batch-size", "64", "--precision", "float32", "--out", str(out)]
    main(["dcnv2@2600", *arguments])
    figures = json.loads(out.read_text())["dcnv2@2600"]
    assert {"step", "Adam", "embedding", "remap", "head", "dense update", "peak", "rows/s"} <= figures.keys()
    assert all(math.isfinite(value) and value > 0 for value in figures.values())
    assert figures["remap"] < figures["embedding"]
    assert "dcnv2@2600" in capsys.readouterr().out


@pytest.mark.skipif(not PEER.exists(), reason=f"FuxiCTR is not installed ({PEER} is made by tools.bench_fuxictr)")
def test_fuxictr_takes_the_same_step() -> None:
    found = case("dcnv2@2600", 64)
    with peer_step(found.run.values, found.specs, found.batch, 1) as step:
        step()
        step()


def test_fuxictr_has_no_counterpart_of_these() -> None:
    found = case("dcnv2@2600", 64)
    assert has_peer(found.run.values["model"], found.specs)
    assert not has_peer({"_target_": "recsys.models.fwfm.FwFMConfig"}, found.specs)
    assert not has_peer(found.run.values["model"], [replace(found.specs[0], max_length=None)])


def test_multiply_adds_are_those_of_the_matrix_products() -> None:
    # LR reads 26 weights of ids, which are added up, and multiplies 13 numbers by a weight: forward 13 a row, backward
    # again 13, for the weights' gradient (the numbers need none).
    found = case("lr@2600", 64)
    with FlopCounterMode(display=False):
        *_, multiply_adds = head_parts(found, TrainConfig())
    assert multiply_adds == 64 * 13 * 2
