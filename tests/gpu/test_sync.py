"""The host runs ahead of the GPU: our own code never waits for it, and batches come over without waiting."""

import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import fbgemm_gpu
import polars as pl
import pytest
import torch
import torchrec
from torch import nn

import recsys
from recsys.core.batch import Batch
from recsys.core.manifest import CategoricalStatistics, Manifest, Split
from recsys.core.schema import CategoricalFeature, Schema
from recsys.data.loader import LoaderOptions, ParquetLoader
from recsys.embeddings.collection import PlannedEmbeddingBagCollection
from recsys.train.config import TableOptimizer
from tests.gpu import world

pytestmark = pytest.mark.gpu

OURS = Path(str(recsys.__file__)).parent
THEIRS = [Path(str(package.__file__)).parent for package in (torchrec, fbgemm_gpu)]
NUM_ROWS = 512


def waits(work: Callable[[], object]) -> list[str]:
    """`file:line` in our package or TorchRec's of everything that made the host wait; "elsewhere" for other code."""
    found: list[str] = []

    def note(message: Warning | str, *_: object, **__: object) -> None:
        if "synchronizing CUDA operation" in str(message):
            stack = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_stack()]
            known = [f"{path}:{line}" for path, line in stack if {OURS, *THEIRS} & set(path.parents)]
            found.append(known[-1] if known else "elsewhere")

    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return found


def ours(places: list[str]) -> list[str]:
    return [place for place in places if place.startswith(f"{OURS}/")]


def test_waiting_is_noticed(cuda: torch.device) -> None:
    assert waits(lambda: torch.ones(1, device=cuda).item()) == ["elsewhere"]


@pytest.mark.parametrize("sharded", [False, True], ids=["plain", "sharded"])
@pytest.mark.parametrize("method", world.ALL_METHODS)
def test_forward_of_the_collection_never_waits(
    cuda: torch.device, method: str, sharded: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """What remains is TorchRec's: a jagged tensor that does not know its keys' lengths asks the device once."""
    collection: nn.Module
    if sharded:
        collection = world.embeddings_session(method, TableOptimizer.SGD, cuda)[0].model
    else:
        collection = PlannedEmbeddingBagCollection(world.plan_of(method), cuda)
    collection(world.batch(0).sparse.to(cuda))  # what happens once only
    unknown, known = world.batch(1).sparse.to(cuda), world.batch(2).sparse
    known.length_per_key()  # counted on the host, and kept by `to`
    known = known.to(cuda)
    when_unknown, when_known = waits(lambda: collection(unknown)), waits(lambda: collection(known))
    with capsys.disabled():
        print(f"\n{method}: waits {sorted(set(when_unknown))}, with known lengths {sorted(set(when_known))}")
    assert ours(when_unknown) == []
    assert ours(when_known) == []
    assert len(when_known) <= len(when_unknown)


@pytest.fixture
def encoded(tmp_path: Path) -> Path:
    """An encoded data set: `user` tells the row, `tags` is (row % 4) times the row."""
    (tmp_path / "train").mkdir()
    rows = range(NUM_ROWS)
    columns = {
        "__row__": list(rows),
        "__label__": pl.Series([row % 2 for row in rows], dtype=pl.Float32),
        "user": [row + 1 for row in rows],
        "tags": pl.Series([[row] * (row % 4) for row in rows], dtype=pl.List(pl.Int64)),
    }
    pl.DataFrame(columns).write_parquet(tmp_path / "train" / "part-00000.parquet")
    known = CategoricalStatistics(num_embeddings=600, num_keys=599, oov_count=0, octave_counts=(), max_length=3)
    features = (CategoricalFeature(name="user"), CategoricalFeature(name="tags", multi_valued=True))
    Manifest(
        dataset="rows",
        schema=Schema(label="y", numeric=(), categorical=features),
        splits={"train": Split(files=("train/part-00000.parquet",), file_rows=(NUM_ROWS,), num_positive=NUM_ROWS // 2)},
        numeric={},
        categorical={feature.name: known for feature in features},
        fingerprint="0",
    ).write(tmp_path)
    return tmp_path


def batches(folder: Path, *, pin_memory: bool) -> Iterator[Batch]:
    options = LoaderOptions(batch_size=64, shuffle=True, seed=1, pin_memory=pin_memory)
    return ParquetLoader(folder, "train", options).epoch(0)


def parts(batch: Batch) -> list[torch.Tensor]:
    return [batch.dense, batch.labels, batch.sparse.values(), batch.sparse.lengths()]


def test_pinned_batches_come_over_whole_and_without_waiting(cuda: torch.device, encoded: Path) -> None:
    pairs = list(zip(batches(encoded, pin_memory=True), batches(encoded, pin_memory=False), strict=True))
    assert len(pairs) == NUM_ROWS // 64
    for pinned, plain in pairs:
        assert all(part.is_pinned() for part in parts(pinned) if part.numel())
        moved: list[Batch] = []
        assert waits(partial(_move, pinned, cuda, moved)) == []
        for got, want in zip(parts(moved[0]), parts(plain), strict=True):
            assert got.device.type == "cuda"
            assert torch.equal(got.cpu(), want)


def _move(batch: Batch, device: torch.device, moved: list[Batch]) -> None:
    moved.append(batch.to(device, non_blocking=True))
