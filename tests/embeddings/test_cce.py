"""Pointers, rows and bytes by hand; what a clustering keeps, what the optimizer forgets, and restarts."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from recsys.core.batch import Batch
from recsys.core.errors import ConfigError
from recsys.core.plan import TablePlan
from recsys.core.specs import FeatureSpec, Init
from recsys.embeddings.cce import CCEConfig, ClusteredRemap, Clustering, PairSums
from recsys.embeddings.collection import PlannedEmbeddingBagCollection, parts_in
from recsys.models.ctr import CtrModel
from recsys.models.dcnv2 import DCNv2Config
from recsys.train import checkpoint
from recsys.train.config import DeviceConfig, OptimizerConfig, TrainConfig
from recsys.train.session import Session, process_group, shard
from recsys.train.tables import initialize_tables, local_parts
from recsys.train.trainer import Trainer
from tests.embeddings.met_or_refused import check_budgets
from tests.ops import splitmix64
from tests.train.worker import BATCH, NUM_DENSE, Ordered, Rows

FEATURES = [
    FeatureSpec(name="user", embedding_dim=8, num_embeddings=40, max_length=1),
    FeatureSpec(name="item", embedding_dim=8, num_embeddings=30, max_length=1),
    FeatureSpec(name="tags", embedding_dim=8, num_embeddings=20),
]
CONFIG = CCEConfig(num_chunks=2, init=Init(scale=1.0))
NOTHING = cast(Batch, None)


def test_pointers_and_rows_by_hand() -> None:
    """Three bits each, ids one after the other: 4 1, 0 2, 3 2 is 4 + 1 * 2**3 + 2 * 2**9 + 3 * 2**12 + 2 * 2**15."""
    remap = ClusteredRemap(num_ids=3, num_rows=5, num_hashed=6, salts=[11, 12, 13, 14])
    remap.fill(torch.tensor([[4, 0, 3], [1, 2, 2]]))
    assert remap.pointers.tolist() == [0x0C, 0x34, 0x01, 0, 0, 0]
    rows = remap(torch.tensor([2, 0, 1]))
    assert rows[:2].tolist() == [[3, 4, 0], [5 + 2, 5 + 1, 5 + 2]]
    assert rows[2].tolist() == [splitmix64.row(key, 13, 6) for key in (2, 0, 1)]
    assert rows[3].tolist() == [6 + splitmix64.row(key, 14, 6) for key in (2, 0, 1)]
    assert remap.rows_needed() == [5, 10, 6, 12]


def test_pointers_start_as_hashes() -> None:
    remap = ClusteredRemap(num_ids=50, num_rows=7, num_hashed=7, salts=[11, 12, 13, 14])
    rows = remap(torch.arange(50))
    assert rows[0].tolist() == [splitmix64.row(key, 11, 7) for key in range(50)]
    assert rows[1].tolist() == [7 + splitmix64.row(key, 12, 7) for key in range(50)]


def test_pointers_of_many_ids_are_stored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ClusteredRemap(num_ids=45, num_rows=5, num_hashed=6, salts=[11, 12, 13, 14])
    pointers = torch.randint(5, (2, 45), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("recsys.embeddings.cce.BLOCK_IDS", 16)
    parts = ClusteredRemap(num_ids=45, num_rows=5, num_hashed=6, salts=[11, 12, 13, 14])
    assert torch.equal(parts.pointers, whole.pointers) and parts.pointers.any()
    parts.fill(pointers)
    assert torch.equal(parts(torch.arange(45))[:2], pointers + torch.tensor([[0], [5]]))


def test_sums_by_hand() -> None:
    rows = [torch.tensor([[value]]) for value in (1.0, 2.0, 10.0, 20.0)]
    assert PairSums()(torch.zeros(1), rows).tolist() == [[11.0, 22.0]]


def test_bytes_by_hand() -> None:
    """10 rows of 2 columns in 4 chunks of 2 tables; 4 pointers of 4 bits an id, 3 bytes more; 4 salts."""
    feature = FeatureSpec(name="a", embedding_dim=8, num_embeddings=1000)
    needed = 2 * 4 * 10 * 2 * 4 + (1000 * 4 * 4 // 8 + 3) + 4 * 8
    plan = CCEConfig(budget_mib=(needed + 31.5) / 2**20).plan([feature])
    assert plan.num_bytes == needed == 2675
    assert plan.features[0].remap.params["num_rows"] == plan.features[0].remap.params["num_hashed"] == 10
    plan = CCEConfig(budget_mib=(needed + 32) / 2**20).plan([feature])  # another hashed row of each chunk
    assert plan.num_bytes == needed + 32
    assert plan.features[0].remap.params["num_hashed"] == 11
    assert CCEConfig(budget_mib=(needed + 64) / 2**20).plan([feature]).features[0].remap.params["num_rows"] == 11


def test_the_floor_is_two_rows_and_the_pointers() -> None:
    feature = FeatureSpec(name="a", embedding_dim=8, num_embeddings=1000)
    floor = 2 * 4 * 2 * 2 * 4 + (1000 * 4 // 8 + 3) + 4 * 8
    with pytest.raises(ConfigError, match=f"needs {floor:,} bytes"):
        CCEConfig(budget_mib=(floor - 1) / 2**20).plan([feature])
    plan = CCEConfig(budget_mib=floor / 2**20).plan([feature])
    assert plan.features[0].remap.params["num_rows"] == 2, "with one, all ids would be equal"


@pytest.mark.parametrize("width", [1, 8, 10, 16])
@pytest.mark.parametrize("ratio", [1.5, 2, 10, 20, 30, 60])
def test_budgets_are_used_by_large_vocabularies(width: int, ratio: float) -> None:
    sizes = {"a": 90_000_000, "b": 5_000_000, "c": 300_000, "d": 1000, "e": 4}
    features = [FeatureSpec(name=n, embedding_dim=width, num_embeddings=size) for n, size in sizes.items()]
    config = CCEConfig(compression_ratio=ratio)
    if width == 1 and ratio > 30:
        with pytest.raises(ConfigError, match="needs"):
            config.plan(features)
        return
    plan = config.plan(features)
    assert 0.99 * config.budget_bytes(features) < plan.num_bytes <= config.budget_bytes(features)
    first = plan.features[0].remap.params
    assert 2 <= first["num_rows"] <= 4096 and first["num_hashed"] >= first["num_rows"]


def test_small_vocabularies_stay_full_and_the_others_have_equal_rows() -> None:
    sizes = {"a": 20_000, "b": 5000, "c": 12, "d": 1}
    features = [FeatureSpec(name=name, embedding_dim=16, num_embeddings=size) for name, size in sizes.items()]
    plan = CCEConfig(compression_ratio=8).plan(features)
    assert [table.name for table in plan.tables if not table.name.startswith(("table_a", "table_b"))] == [
        "table_c",
        "table_d",
    ]
    rows = {entry.remap.params["num_rows"] for entry in plan.features[:2]}
    assert len(rows) == 1 and rows.pop() > 100


def test_budgets_are_kept_or_refused() -> None:
    check_budgets(lambda ratio: CCEConfig(compression_ratio=ratio))


@pytest.mark.parametrize(("width", "chunks"), [(16, 4), (10, 2), (9, 3), (7, 1), (1, 1), (4, 4), (2, 2)])
def test_a_width_is_cut_into_equal_chunks(width: int, chunks: int) -> None:
    plan = CCEConfig(compression_ratio=3).plan([FeatureSpec(name="a", embedding_dim=width, num_embeddings=50_000)])
    assert len(plan.features[0].tables) == 2 * chunks
    assert {table.embedding_dim for table in plan.tables} == {width // chunks}


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="num_chunks=0: must be 1 or more"):
        CCEConfig(num_chunks=0)
    with pytest.raises(ConfigError, match=r"cluster_steps=\[0\]: steps count from 1"):
        CCEConfig(cluster_steps=[0])
    with pytest.raises(ConfigError, match="has no vocabulary"):
        CCEConfig().plan([FeatureSpec(name="a", embedding_dim=8, num_embeddings=None)])


@pytest.fixture
def session() -> Iterator[Session]:
    plan = plan_of(CONFIG)
    with process_group(DeviceConfig()) as device:
        torch.manual_seed(3)
        head = DCNv2Config(embedding_dim=8, num_cross_layers=1, hidden_units=[8], batch_norm=False, dropout=0.0).build(
            FEATURES, NUM_DENSE
        )
        model = CtrModel(PlannedEmbeddingBagCollection(plan, torch.device("meta")), head)
        found = shard(model, OptimizerConfig(table_learning_rate=0.05), DeviceConfig(), device)
        initialize_tables(found.model.state_dict(), plan, seed=5)
        yield found


def plan_of(config: CCEConfig) -> TablePlan:
    """Six rows a chunk, and nine for the 20 tags, so that some are without ids."""
    return TablePlan.merge(
        [config._plan_one(feature, *((9, 9) if feature.name == "tags" else (6, 6))) for feature in FEATURES]
    )


def remap_of(session: Session, name: str) -> ClusteredRemap:
    remap = parts_in(session.model)[name][0]
    assert isinstance(remap, ClusteredRemap)
    return remap


def tables_of(session: Session, name: str) -> tuple[Tensor, Tensor]:
    """(pointed, hashed), each (chunks, rows, width)."""
    remap = remap_of(session, name)
    rows = torch.arange(2 * remap.num_rows)
    pointed, hashed = (
        session.read_rows(f"table_{name}_{kind}", rows).unflatten(0, (2, -1)) for kind in ("pointed", "hashed")
    )
    return pointed, hashed


def vectors_of(session: Session, name: str) -> tuple[Tensor, Tensor]:
    """(what the pointers give, the whole), of every id and chunk: (chunks, n, width)."""
    remap = remap_of(session, name)
    pointed, hashed = (table.flatten(0, 1) for table in tables_of(session, name))
    rows = remap(torch.arange(remap.num_ids))
    return pointed[rows[:2]], pointed[rows[:2]] + hashed[rows[2:]]


def test_clustering_loses_what_k_means_loses(session: Session) -> None:
    _, before = vectors_of(session, "user")
    Clustering(plan_of(CONFIG), CONFIG).on_step_start(session, 8, NOTHING)
    centroids, after = vectors_of(session, "user")
    for chunk in range(2):
        inertia = (before[chunk] - centroids[chunk]).square().sum().item()
        best = KMeans(6, n_init=20, random_state=0).fit(before[chunk].numpy()).inertia_
        assert best * 0.999 <= inertia <= best * 1.25, "one run may fall into a worse optimum than the best of 20"
        assert (before[chunk] - after[chunk]).square().sum().item() < inertia, "means of what is left take some away"
        spread = (before[chunk] - before[chunk].mean(0)).square().sum().item()
        assert inertia < spread / 2


def test_as_many_vectors_as_rows_are_kept(session: Session) -> None:
    zeros = torch.zeros(2 * 6, 4)
    session.write_rows("table_user_hashed", torch.arange(12), zeros)
    _, before = vectors_of(session, "user")
    assert all(len(chunk.unique(dim=0)) == 6 for chunk in before)
    Clustering(plan_of(CONFIG), CONFIG).on_step_start(session, 8, NOTHING)
    _, after = vectors_of(session, "user")
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    torch.testing.assert_close(tables_of(session, "user")[1].flatten(0, 1), zeros, rtol=0, atol=1e-5)


def test_hashes_are_drawn_anew_and_rows_without_ids_are_zero(session: Session) -> None:
    remap = remap_of(session, "tags")
    salts = remap.salts.clone()
    Clustering(plan_of(CONFIG), CONFIG).on_step_start(session, 8, NOTHING)
    assert not (remap.salts == salts).any()
    used = remap(torch.arange(20))[2:] - torch.tensor([[0], [9]])
    _, hashed = tables_of(session, "tags")
    assert hashed.isfinite().all()
    empty = [[row not in used[chunk] for row in range(9)] for chunk in range(2)]
    assert any(map(any, empty))
    assert not hashed[torch.tensor(empty)].any()


def train(session: Session, steps: int, callback: Clustering) -> None:
    trainer = Trainer(session, plan_of(CONFIG), TrainConfig(batch_size=BATCH), Path(), [callback])
    for number, batch in enumerate(Rows(0, 1).epoch(0)):
        if number < steps:
            trainer._step(batch, batch.labels.numel())


def test_the_optimizer_forgets_what_was_clustered(session: Session) -> None:
    callback = Clustering(plan_of(CONFIG), CONFIG)
    train(session, 3, callback)
    assert all(sums.any() for sums in sums_of(session).values())
    callback.on_step_start(session, 8, NOTHING)
    assert not any(sums.any() for sums in sums_of(session).values())


def sums_of(session: Session) -> dict[str, Tensor]:
    """Adagrad's sums of squares, by table."""
    return {
        f"{name}.{key}": local_parts(value)[0][0]
        for name, states in session.optimizer.state_dict()["state"].items()
        if "table_" in name
        for key, value in states.items()
        if local_parts(value)[0][0].dim()
    }


def test_clusters_before_its_steps_alone(session: Session) -> None:
    config = CCEConfig(num_chunks=2, cluster_steps=[2, 5])
    salts = remap_of(session, "item").salts
    changed = []
    for step in range(1, 8):
        before = salts.clone()
        Clustering(plan_of(config), config).on_step_start(session, step, NOTHING)
        changed.append(not torch.equal(salts, before))
    assert changed == [False, True, False, False, True, False, False]


def test_the_best_weights_of_one_epoch_are_clustered(session: Session, tmp_path: Path) -> None:
    config = CCEConfig(num_chunks=2, cluster_steps=[3, 5], init=Init(scale=1.0))
    start = {name: value.clone() for name, value in remap_of(session, "user").state_dict().items()}
    options = TrainConfig(epochs=1, batch_size=BATCH, eval_batch_size=BATCH)
    trainer = Trainer(session, plan_of(config), options, tmp_path, [Clustering(plan_of(config), config)])
    trainer.run(Rows(0, 1), Ordered(0, 1), seed=11)
    best = checkpoint.find(tmp_path / "best")
    assert best is not None
    saved = checkpoint.read_tensors(best, "model.")
    for name, value in start.items():
        kept = [tensor for key, tensor in saved.items() if key.endswith(f"remaps.0.{name}")]
        assert len(kept) == 1 and not torch.equal(kept[0], value), name
