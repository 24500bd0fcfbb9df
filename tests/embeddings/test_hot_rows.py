"""Private rows that change hands: rows by hand, what training promotes, restarts, ranks, drift."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from pipelines.entry import leave
from recsys.core.batch import Batch
from recsys.core.callback import Callback, TrainingSession
from recsys.core.specs import FeatureSpec, Init
from recsys.embeddings.cafe import CafeConfig
from recsys.embeddings.collection import PlannedEmbeddingBagCollection, parts_in
from recsys.embeddings.hot_rows import UNIT, HotRemap, Promotion
from recsys.models.ctr import CtrModel
from recsys.models.dcnv2 import DCNv2Config
from recsys.ops.hashing import hash_rows
from recsys.train import checkpoint
from recsys.train.config import DeviceConfig, OptimizerConfig, TrainConfig
from recsys.train.session import process_group, shard
from recsys.train.tables import initialize_tables
from recsys.train.trainer import Trainer
from tests.ops import splitmix64

ZIPF = tuple(1000 for _ in range(10))


@pytest.fixture
def device() -> Iterator[torch.device]:
    with process_group(DeviceConfig()) as found:
        yield found


def test_rows_by_hand() -> None:
    remap = HotRemap(num_shared=5, first_private=20, num_private=4, num_ids=100, salt=7)
    hashed = [splitmix64.row(key, 7, 5) for key in range(100)]
    assert remap(torch.arange(6)).tolist() == [[20, 21, 22, 23, hashed[4], hashed[5]]]
    remap.assign(torch.tensor([1, 3]), torch.tensor([99, 50]))
    assert remap.hot_ids.tolist() == [0, 2, 50, 99] and remap.hot_rows.tolist() == [0, 2, 3, 1]
    assert remap(torch.tensor([0, 1, 2, 3, 50, 99, 98])).tolist() == [
        [20, hashed[1], 22, hashed[3], 23, 21, hashed[98]]
    ]
    remap.clear()
    assert remap(torch.tensor([0, 99])).tolist() == [[hashed[0], hashed[99]]]


def test_keys_at_the_ends_of_64_bits() -> None:
    remap = HotRemap(num_shared=5, first_private=5, num_private=3, num_ids=0, salt=7)
    ends = [2**63 - 1, -(2**63), -1]
    hashed = [splitmix64.row(key, 7, 5) for key in ends]
    assert remap(torch.tensor(ends)).tolist() == [hashed], "2**63 - 1 marks unused entries, and is no hit"
    remap.assign(torch.tensor([1, 0]), torch.tensor(ends[:2]))
    assert remap.hot_rows.tolist() == [0, 1, -1]
    assert remap(torch.tensor(ends)).tolist() == [[6, 5, hashed[2]]]
    torch.testing.assert_close(torch.jit.script(remap)(torch.tensor(ends)), remap(torch.tensor(ends)))


@pytest.mark.parametrize(
    ("num_ids", "num_private", "each"),
    [(1 << 15, 1 << 15, 4), ((1 << 15) + 1, 1 << 15, 6), (1 << 31, 1 << 16, 8), (0, 100, 10), (0, 1 << 16, 12)],
)
def test_bytes_of_the_map(num_ids: int, num_private: int, each: int) -> None:
    remap = HotRemap(num_shared=1, first_private=1, num_private=num_private, num_ids=num_ids, salt=0)
    assert sum(value.nbytes for value in remap.state_dict().values()) == num_private * each


PRIOR = 1e-3
"""Small beside the importance of a few steps, so that rows change hands."""


class Stream:
    """Rows of three features: `a` of popular ids and rare ones, `b` small, `tags` many-valued keys.

    Labels are noise: an id whose label is learned has no gradient left, and so no importance.
    """

    def __init__(self, popular: list[int], session: TrainingSession | None = None, *, batches: int = 12) -> None:
        self.popular, self.num_batches, self.num_rows = popular, batches, 64 * batches
        self._rank, self._ranks = (session.rank, session.world_size) if session else (0, 1)

    def rows_of(self, batch: int) -> int:
        return 64

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        for number in range(start_batch, self.num_batches):
            generator = torch.Generator().manual_seed(1000 * epoch + number)
            common = torch.tensor(self.popular)[torch.randint(len(self.popular), (64,), generator=generator)]
            rare = torch.randint(1, 1000, (64,), generator=generator)
            a = torch.where(torch.rand(64, generator=generator) < 0.7, common, rare)
            b = torch.randint(5, (64,), generator=generator)
            tags = torch.randint(40, (64, 3), generator=generator) - 2**62
            lengths = torch.randint(3, (64,), generator=generator)
            labels = torch.randint(2, (64,), generator=generator).float()
            mine = torch.arange(64).tensor_split(self._ranks)[self._rank]
            sparse = KeyedJaggedTensor(
                keys=["a", "b", "tags"],
                values=torch.cat([a[mine], b[mine], tags[mine][torch.arange(3) < lengths[mine].unsqueeze(1)]]),
                lengths=torch.cat([torch.ones(2 * len(mine), dtype=torch.int64), lengths[mine]]),
            )
            yield Batch(torch.zeros(len(mine), 1), sparse, labels[mine])


FEATURES = [
    FeatureSpec(name="a", embedding_dim=8, num_embeddings=1000, max_length=1, octave_counts=ZIPF),
    FeatureSpec(name="b", embedding_dim=8, num_embeddings=5, max_length=1),
    FeatureSpec(name="tags", embedding_dim=8, num_embeddings=None, octave_counts=(9, 9, 9, 9, 9, 9)),
]
CONFIG = CafeConfig(compression_ratio=20, refresh_every=4, half_life=10, init=Init(scale=0.1))


class Trained:
    """A session with the callbacks of `config`."""

    def __init__(self, config: CafeConfig, folder: Path, device: torch.device, spies: list[Callback]) -> None:
        self.plan = config.plan(FEATURES)
        torch.manual_seed(3)
        head = DCNv2Config(embedding_dim=8, num_cross_layers=1, hidden_units=[8], batch_norm=False, dropout=0.0).build(
            [entry.feature for entry in self.plan.features], 1
        )
        optimizer = OptimizerConfig(table_learning_rate=0.05, dense_learning_rate=0.01)
        model = CtrModel(PlannedEmbeddingBagCollection(self.plan, torch.device("meta")), head)
        self.session = shard(model, optimizer, DeviceConfig(), device)
        initialize_tables(self.session.model.state_dict(), self.plan, seed=5)
        (callback,) = config.callbacks(self.plan)
        assert isinstance(callback, Promotion)
        self.callback = callback
        self.training = TrainConfig(batch_size=64, eval_batch_size=64, optimizer=optimizer)
        self.trainer = Trainer(self.session, self.plan, self.training, folder, [*spies, callback])

    def remap(self, name: str) -> HotRemap:
        remap = parts_in(self.session.model)[name][0]
        assert isinstance(remap, HotRemap)
        return remap

    def train(self, stream: Stream, epochs: int = 1) -> None:
        """Without validation, so that phases follow one another."""
        self.session.model.train()
        for epoch in range(epochs):
            for batch in stream.epoch(epoch):
                self.trainer._step(batch, 64)


def hot(remap: HotRemap) -> set[int]:
    return set(remap.hot_ids[remap.hot_rows >= 0].tolist())


def start(trained: Trained) -> None:
    trained.callback.on_train_start(trained.session)


@pytest.mark.parametrize("prior", [0.0, PRIOR])
def test_popular_ids_own_rows_and_after_a_drift_the_new_ones_do(
    prior: float, device: torch.device, tmp_path: Path
) -> None:
    trained = Trained(replace(CONFIG, prior_epochs=prior), tmp_path, device, [])
    remap = trained.remap("a")
    assert remap.num_private > 10
    start(trained)
    assert hot(remap) == (set(range(remap.num_private)) if prior else {0}), "what the counts say, or nobody"
    for popular in (list(range(501, 511)), list(range(801, 811))):
        trained.train(Stream(popular), epochs=3)
        assert set(popular) <= hot(remap)
    assert 0 in hot(remap), "out-of-vocabulary keeps its row"
    assert len(set(range(501, 511)) & hot(remap)) < 10
    keys = hot(trained.remap("tags"))
    assert keys and all(-(2**62) <= key < -(2**62) + 40 for key in keys)


class Spy(Callback):
    """Compares embeddings of all ids before and after the callback that follows it in the list."""

    def __init__(self) -> None:
        self.trained: Trained
        self.promoted = 0
        self.table = torch.zeros(0)
        self.rows = torch.zeros(0, dtype=torch.int64)

    def on_step_end(self, session: TrainingSession, step: int, loss: Tensor) -> None:
        self.table, self.rows = table_of(self.trained), self.trained.remap("a")(torch.arange(1000))[0]


def table_of(trained: Trained) -> Tensor:
    name = trained.plan.features[0].tables[0]
    return trained.session.read_rows(name, torch.arange(trained.plan.table(name).num_embeddings)).clone()


class After(Callback):
    """Checks every promotion against what `Spy` saw."""

    def __init__(self, spy: Spy) -> None:
        self.spy = spy

    def on_step_end(self, session: TrainingSession, step: int, loss: Tensor) -> None:
        spy = self.spy
        remap = spy.trained.remap("a")
        rows, table = remap(torch.arange(1000))[0], table_of(spy.trained)
        hashed = hash_rows(torch.arange(1000), remap.salt, remap.num_shared)[0]
        for key in (rows != spy.rows).nonzero().squeeze(1).tolist():
            if rows[key] < remap.first_private:
                assert rows[key] == hashed[key], "whoever lost a row is back at the hashed one"
                continue
            assert spy.rows[key] == hashed[key]
            assert torch.equal(table[rows[key]], spy.table[hashed[key]]), "a private row starts as a copy"
            spy.promoted += 1
        assert torch.equal(table[: remap.num_shared], spy.table[: remap.num_shared])
        assert (rows != spy.rows).any() == (step % 4 == 0 and bool((rows != spy.rows).any())), "only every fourth step"


def test_promotion_copies_the_hashed_row(device: torch.device, tmp_path: Path) -> None:
    spy = Spy()
    trained = Trained(replace(CONFIG, prior_epochs=PRIOR), tmp_path, device, [spy])
    spy.trained = trained
    trained.trainer.callbacks.append(After(spy))
    start(trained)
    trained.train(Stream(list(range(501, 511))))
    assert spy.promoted >= 10


@pytest.mark.filterwarnings("ignore:Please use DTensor:FutureWarning")  # torch about its own checkpoints
def test_an_interrupted_training_goes_on_to_the_same_weights(device: torch.device, tmp_path: Path) -> None:
    """Promotions in every epoch, and a restart between them."""
    states = []
    for name, parts in (("whole", (2,)), ("parts", (1, 2))):
        for epochs in parts:
            trained = Trained(replace(CONFIG, prior_epochs=PRIOR), tmp_path / name, device, [])
            trained.trainer.config = replace(trained.training, epochs=epochs)
            trained.trainer.run(Stream([501, 502, 503]), Stream([501]), seed=1)
        states.append(trained)
    whole, resumed = (checkpoint.read_tensors(tmp_path / name / "last", "model.") for name in ("whole", "parts"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    assert states[0].callback.state_dict() == states[1].callback.state_dict()
    assert {501, 502, 503} <= hot(states[0].remap("a"))


def test_two_ranks_promote_what_one_process_does(device: torch.device, tmp_path: Path) -> None:
    launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "-m", "tests.embeddings.test_hot_rows", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    trained, table = trained_on_a_stream(device, tmp_path)
    assert {501, 502, 503} <= hot(trained.remap("a"))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        sketch = trained.callback._sketch
        assert torch.equal(found["ids"], sketch.ids)
        # half a batch's gradients need not round as a whole batch's do
        torch.testing.assert_close(found["scores"].double(), sketch.scores.double(), rtol=1e-4, atol=UNIT * 1e-4)
        torch.testing.assert_close(found["table"], table, rtol=1e-4, atol=1e-5)
        for name in ("a", "tags"):
            assert torch.equal(found[name], trained.remap(name).hot_ids)


def trained_on_a_stream(device: torch.device, folder: Path) -> tuple[Trained, Tensor]:
    trained = Trained(replace(CONFIG, prior_epochs=PRIOR), folder, device, [])
    start(trained)
    trained.train(Stream([501, 502, 503], trained.session))
    return trained, table_of(trained)


def main(folder: Path) -> None:
    """A rank of the test above."""
    with process_group(DeviceConfig()) as device:
        trained, table = trained_on_a_stream(device, folder)
        sketch = trained.callback._sketch
        found = {name: trained.remap(name).hot_ids for name in ("a", "tags")}
        found |= {"table": table, "ids": sketch.ids, "scores": sketch.scores}
        torch.save(found, folder / f"{trained.session.rank}.pt")


def test_importance_by_hand(device: torch.device) -> None:
    """Norms 3, 1 and (of a bag of two ids) 2 and 2; a batch of four rows sums to four units in each feature."""
    trained = Trained(replace(CONFIG, prior_epochs=0.0), Path(), device, [])
    start(trained)
    sparse = KeyedJaggedTensor(
        keys=["a", "b", "tags"],
        values=torch.tensor([7, 9, 7, 0, 1, 1, 1, 1, 5, 6]),
        lengths=torch.tensor([1] * 8 + [2, 0, 0, 0]),
    )
    trained.callback.on_step_start(trained.session, 1, Batch(torch.zeros(4, 1), sparse, torch.zeros(4)))
    trained.callback._note("a", torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0], [100.0, 0.0]]))
    trained.callback._note("tags", torch.tensor([[0.0, 2.0], [9.0, 9.0], [9.0, 9.0], [9.0, 9.0]]))
    trained.callback.on_step_end(trained.session, 1, torch.zeros(()))
    sketch = trained.callback._sketch
    kept = sketch.scores >= 0
    found = dict(zip(sketch.ids[kept].tolist(), sketch.scores[kept].tolist(), strict=True))
    assert found == {7: 3 * UNIT, 9: UNIT, 5: 2 * UNIT, 6: 2 * UNIT}, "out-of-vocabulary is not scored"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave()
