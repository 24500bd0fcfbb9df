"""The step of FuxiCTR as a contestant of `tools.bench_train`: the same model and batch, an optimizer of its own."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import torch

from recsys.core.batch import Batch
from recsys.core.errors import ConfigError, StageError
from recsys.core.specs import FeatureSpec
from tools.fuxictr_setup import ROOT, peer_python, peer_zoo
from tools.reproduce_models import ZOO, peer_settings


def has_peer(model: Mapping[str, Any], specs: list[FeatureSpec]) -> bool:
    """True if FuxiCTR has this model and every column has one id a row."""
    known = model["_target_"].rpartition(".")[2] in ZOO
    return known and all(spec.max_length == 1 and not spec.also for spec in specs)


@contextmanager
def peer_step(
    values: Mapping[str, Any], specs: list[FeatureSpec], batch: Batch, num_threads: int
) -> Iterator[Callable[[], None]]:
    """A step of FuxiCTR's, in a process of its own, which waits between steps.

    Args:
        values: of the whole run, plain.
        specs: the columns, one id a row each.
        batch: to train on.
        num_threads: of the process.
    Raises:
        ConfigError: FuxiCTR has no such model.
        StageError: its process ended.
    """
    sizes = {spec.name: _size(spec) for spec in specs}
    ids = {name: batch.sparse[name].values() for name in sizes}
    numeric = {f"numeric_{column}": values for column, values in enumerate(batch.dense.unbind(dim=1))}
    settings = peer_settings(values, numeric=list(numeric), categorical=list(sizes))
    with tempfile.TemporaryDirectory() as folder:
        settings_file, batch_file, log = (Path(folder) / name for name in ("settings.json", "batch.pt", "log.txt"))
        settings_file.write_text(json.dumps(asdict(settings)))
        torch.save({"sizes": sizes, "inputs": {**numeric, **ids, "label": batch.labels}}, batch_file)
        command = [str(peer_python()), "-m", "tools.fuxictr_step", "--zoo", str(peer_zoo())]
        command += ["--settings", str(settings_file), "--batch", str(batch_file), "--threads", str(num_threads)]
        with log.open("wb") as errors, _process(command, errors) as process:
            _expect(process, "ready", log)
            yield lambda: _ask(process, log)


def _size(spec: FeatureSpec) -> int:
    if spec.num_embeddings is None:
        raise ConfigError(f"{spec.name!r} has hashed keys, and FuxiCTR looks up ids of a vocabulary only.")
    return spec.num_embeddings


@contextmanager
def _process(command: list[str], errors: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _ask(process: subprocess.Popen[str], log: Path) -> None:
    assert process.stdin is not None
    process.stdin.write("step\n")
    process.stdin.flush()
    _expect(process, "done", log)


def _expect(process: subprocess.Popen[str], word: str, log: Path) -> None:
    assert process.stdout is not None
    if process.stdout.readline().strip() != word:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise StageError(f"FuxiCTR's process ended before it said {word!r}; it printed\n{tail}")
