"""Refreshing codebooks: which rows are sampled, that no centroid is left behind, and that ranks agree."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from pipelines.entry import leave
from recsys.core.batch import Batch
from recsys.core.callback import TrainingSession
from recsys.core.specs import FeatureSpec
from recsys.embeddings.codebook_training import sample_ids
from recsys.embeddings.collection import PlannedEmbeddingBagCollection, parts_in
from recsys.embeddings.dpq import DPQConfig, NearestCentroids
from recsys.embeddings.mgqe import MGQEConfig
from tests.embeddings import dense_reference as reference

ZIPF = tuple(1000 for _ in range(9))  # octave counts


def test_sampled_ids_are_ranked_ids_as_look_ups_fall() -> None:
    ids = sample_ids(100_000, 4096, seed=1)
    assert torch.equal(ids, sample_ids(100_000, 4096, seed=1)) and not torch.equal(ids, sample_ids(100_000, 4096, 2))
    assert torch.equal(ids, ids.unique()) and int(ids[0]) == 0 and int(ids[-1]) < 100_000
    assert 0.3 < (ids < 2**11).float().mean() < 0.6, "11 of 17 octaves, whose ids repeat more often"
    assert sample_ids(1, 10, seed=0).tolist() == [0]


class OneRank(SimpleNamespace):
    """The part of a session that the callback uses, over an unsharded model."""

    model: nn.Module
    is_main = True
    world_size = 1

    def read_rows(self, table: str, rows: Tensor) -> Tensor:
        weight = reference.table_parameters(self.model)[table].detach()
        return weight[rows.to(weight.device)]


@pytest.mark.parametrize("config", [DPQConfig(num_centroids=8, part_dim=4), MGQEConfig(num_centroids=8, part_dim=4)])
def test_refresh_brings_back_centroids_that_rows_ran_away_from(config: DPQConfig) -> None:
    torch.manual_seed(0)
    feature = FeatureSpec(name="a", embedding_dim=4, num_embeddings=200, octave_counts=ZIPF)
    plan = config.plan([feature])
    collection = PlannedEmbeddingBagCollection(plan)
    combiner = parts_in(collection)["a"][1]
    assert isinstance(combiner, NearestCentroids)
    weight = reference.table_parameters(collection)["table_a"]
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape) + 5)  # the centroids lie within 1e-3 of zero
    (callback,) = config.callbacks(plan)
    session = cast(TrainingSession, OneRank(model=collection))
    callback.on_train_start(session)
    nothing = cast(Batch, None)
    ids = torch.arange(200)

    def used() -> int:
        return int(combiner.codes(ids, weight.detach()).unique().numel())

    callback.on_step_start(session, 17, nothing)
    assert used() <= 2
    callback.on_step_start(session, 32, nothing)
    assert used() == 8
    with torch.no_grad():
        error = (combiner(ids, [weight]) - weight).square().mean()
    assert error < 0.75, "of variance 1"


def refresh_on(rank: int, store: str, folder: str) -> None:
    """Refresh codebooks from rows that differ in their last bits, as other machines would give."""
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    torch.manual_seed(0)
    plan = DPQConfig(num_centroids=8, part_dim=4).plan([FeatureSpec(name="a", embedding_dim=4, num_embeddings=200)])
    collection = PlannedEmbeddingBagCollection(plan)
    with torch.no_grad():
        weight = reference.table_parameters(collection)["table_a"]
        weight.copy_(torch.randn(weight.shape) + rank * 1e-6)
    session = cast(TrainingSession, OneRank(model=collection, is_main=rank == 0, world_size=2))
    (callback,) = DPQConfig().callbacks(plan)
    callback.on_train_start(session)
    callback.on_step_start(session, 16, cast(Batch, None))
    torch.save(collection.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
    leave()


def test_ranks_agree_on_refreshed_codebooks_to_the_last_bit(tmp_path: Path) -> None:
    mp.spawn(refresh_on, args=(str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    (name,) = [key for key in first if key.endswith("codebook")]
    assert torch.equal(first[name], second[name]) and first[name].std() > 0.5
