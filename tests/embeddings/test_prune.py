"""Pruning: rows and bytes by hand, the largest weights survive, and what the callback does while training."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.embeddings.full import FullConfig
from recsys.embeddings.prune import MagnitudePruning, PruneConfig, PrunedRemap, largest
from recsys.train.config import DeviceConfig, OptimizerConfig
from recsys.train.session import process_group, shard
from recsys.train.tables import initialize_tables
from tests.embeddings.post_training import (
    assert_equals_reference,
    assert_frozen_as_planned,
    assert_scripts,
    error,
    served_rows,
    trained,
    users_and_tags,
)
from tests.train.worker import build

FEATURES = users_and_tags(300)


def test_trains_what_full_trains() -> None:
    assert PruneConfig(compression_ratio=5).plan(FEATURES).fingerprint == FullConfig().plan(FEATURES).fingerprint


@pytest.mark.parametrize("ratio", [1.2, 2.0, 8.0, 20.0])
def test_frozen_parts_are_those_of_the_serving_plan(ratio: float) -> None:
    config = PruneConfig(compression_ratio=ratio)
    parts = trained(config.plan(FEATURES), decay=0.3)
    frozen = assert_frozen_as_planned(config, parts)
    assert frozen.plan.num_bytes > 0.97 * config.budget_bytes(FEATURES) - 4
    assert_scripts(frozen)
    assert frozen.tables["kept_user"][0] == 0


@pytest.mark.parametrize("ratio", [2.0, 20.0])
def test_served_embeddings_equal_the_dense_reference(ratio: float) -> None:
    config = PruneConfig(compression_ratio=ratio)
    assert_equals_reference(config.freeze(trained(config.plan(FEATURES), decay=0.3)))


@pytest.mark.parametrize("ratio", [1.2, 2.0, 8.0, 20.0])
def test_the_largest_weights_survive_and_all_others_are_zero(ratio: float) -> None:
    config = PruneConfig(compression_ratio=ratio)
    parts = trained(config.plan(FEATURES), decay=0.3)
    frozen = config.freeze(parts)
    num_kept = frozen.plan.tables[0].num_embeddings - 1
    with_bitmap = {e.feature.name: e.remap.params["num_rows"] for e in frozen.plan.features}
    weights = torch.cat([parts.tables[f"table_{name}"][:rows].reshape(-1) for name, rows in with_bitmap.items()])
    threshold = weights.abs().sort(descending=True).values[num_kept - 1]
    for name, served in served_rows(frozen).items():
        table = parts.tables[f"table_{name}"].clone()
        table[with_bitmap[name] :] = 0
        assert torch.equal(served, torch.where(table.abs() >= threshold, table, 0.0)), name


def test_rows_by_hand() -> None:
    """Width 3, 17 rows: bits of row 0 are 1 0 1, of row 1 0 1 1, row 16 opens the second block with 0 0 1."""
    remap = PrunedRemap(num_rows=17, embedding_dim=3, num_values=20)
    kept = torch.zeros(17, 3, dtype=torch.bool)
    kept[0, [0, 2]] = kept[1, [1, 2]] = kept[15, 0] = kept[16, 2] = True
    remap.fill(kept, 4)
    # bits 0, 2, 4, 5 of the first byte; bit 45 is bit 5 of byte 5; bit 2 of the second block
    assert remap.bitmap.tolist() == [[0b110101, 0, 0, 0, 0, 0b100000], [0b100, 0, 0, 0, 0, 0]]
    assert remap.starts.tolist() == [4, 9]
    rows = remap(torch.tensor([0, 1, 2, 15, 16, 17, 2**63 - 1]))
    assert rows.t().tolist() == [[4, 0, 5], [0, 6, 7], [0, 0, 0], [8, 0, 0], [0, 0, 9], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("width", [1, 2, 7, 8, 16, 33])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_every_bit_is_counted(width: int, density: float) -> None:
    kept = torch.rand(50, width, generator=torch.Generator().manual_seed(width)) < density
    remap = PrunedRemap(num_rows=50, embedding_dim=width, num_values=2000)
    remap.fill(kept, 1)
    want = (kept.reshape(-1).cumsum(0).view(50, width)) * kept
    assert torch.equal(remap(torch.arange(50)), want.t())


def test_bytes_by_hand() -> None:
    """1600 rows of width 16 at ratio 4: 25,600 bytes. Bitmaps take 100 * (32 + 4), left are 5500 floats, one a zero."""
    feature = [FeatureSpec(name="a", embedding_dim=16, num_embeddings=1600)]
    config = PruneConfig(compression_ratio=4)
    served = config.serving_plan(config.plan(feature))
    assert served.remap_bytes == 3600 and served.table_bytes == 4 * 5500 and served.num_bytes == 25_600
    # Half of the bytes keep 46 % of the weights; CSR 22 % and COO 17 %, as `reference` formats count them.
    half = PruneConfig(compression_ratio=2)
    kept = half.serving_plan(half.plan(feature)).tables[0].num_embeddings - 1
    assert kept / 25_600 == pytest.approx(0.4648, abs=1e-3)
    csr, coo = (51_200 - 4 * 1600) / 8, 51_200 / 12
    assert csr / 25_600 == pytest.approx(0.2188, abs=1e-4) and coo / 25_600 == pytest.approx(0.1667, abs=1e-4)


def test_rarest_ids_lose_their_bitmaps_where_those_would_weigh_most() -> None:
    feature = [FeatureSpec(name="a", embedding_dim=16, num_embeddings=16_000, octave_counts=(100, 90, 80, 70))]
    rows = []
    for ratio in (10, 30, 100):
        config = PruneConfig(compression_ratio=ratio)
        served = config.serving_plan(config.plan(feature))
        rows.append(served.features[0].remap.params["num_rows"])
        kept = served.tables[0].num_embeddings - 1
        assert kept * 16 >= rows[-1] * 16 and served.num_bytes > 0.99 * config.budget_bytes(feature)
    assert rows[0] == 16_000 > rows[1] > rows[2]


def test_the_floor_is_said_and_accepted() -> None:
    feature = [FeatureSpec(name="a", embedding_dim=16, num_embeddings=16_000)]
    with pytest.raises(ConfigError, match="prune needs 44 bytes"):  # a bitmap of 32, a start, zero and a weight
        PruneConfig(budget_mib=43 / 2**20).plan(feature)
    PruneConfig(budget_mib=44 / 2**20).plan(feature)


def test_error_falls_with_bytes_and_nothing_is_lost_without_a_budget() -> None:
    errors = [error(PruneConfig(compression_ratio=ratio), FEATURES) for ratio in (20, 8, 4, 2, 1.05, 1.0)]
    assert all(more > less for more, less in pairwise(errors)) and errors[-1] == 0


def test_more_weights_than_places_tell_apart_are_refused() -> None:
    feature = [FeatureSpec(name="a", embedding_dim=64, num_embeddings=60_000_000)]
    with pytest.raises(
        ConfigError, match="weights would be kept, but `prune` finds them by int32 places, 2,147,483,647"
    ):
        PruneConfig(compression_ratio=1.5).plan(feature)
    config = PruneConfig(budget_mib=8192)
    served = config.serving_plan(config.plan(feature))
    assert served.tables[0].num_embeddings - 1 <= 2**31 - 1


def test_largest_takes_the_first_of_equals() -> None:
    values = torch.tensor([1.0, -3.0, 2.0, -2.0, 0.0, 2.0])
    assert largest(values, 3).tolist() == [False, True, True, True, False, False]
    assert largest(values, 0).sum() == 0 and largest(values, 6).all() and largest(values, 9).all()
    assert largest(torch.zeros(5), 2).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize(("name", "value"), [("every", 0), ("damping_steps", 0), ("warm_up_steps", -1)])
def test_impossible_schedules_are_refused(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"{name}={value}: must be"):
        replace(PruneConfig(), **{name: value})  # type: ignore[arg-type]


def test_callback_is_there_only_when_asked_for() -> None:
    plan = FullConfig().plan(FEATURES)
    assert PruneConfig(compression_ratio=4).callbacks(plan) == []
    assert PruneConfig(during_training=True).callbacks(plan) == []  # nothing to prune without a budget
    config = PruneConfig(compression_ratio=4, during_training=True, full_below=60)
    (callback,) = config.callbacks(plan)
    assert isinstance(callback, MagnitudePruning)
    assert {table.name for table in callback.tables} == {"table_user", "table_user__linear"}
    served = config.serving_plan(plan)
    kept = served.table("kept_user").num_embeddings - 1
    assert callback.target == pytest.approx(1 - kept / (300 * 9))


@pytest.fixture
def device() -> Iterator[torch.device]:
    with process_group(DeviceConfig()) as found:
        yield found


def test_zeroes_the_smallest_weights_of_a_sharded_model_at_its_steps(device: torch.device) -> None:
    """Target 1/2, damping 1: 23 steps after the warm-up 0.5 * (1 - 0.99 ** 23) = 10.3 % of all weights are zero."""
    model, plan = build()
    session = shard(model, OptimizerConfig(), DeviceConfig(), device)
    initialize_tables(session.model.state_dict(), plan, seed=5)
    config = PruneConfig(during_training=True, every=23, damping_steps=1, warm_up_steps=23)
    callback = MagnitudePruning(config=config, tables=plan.tables, target=0.5)

    def weights() -> Tensor:
        rows = [session.read_rows(t.name, torch.arange(t.num_embeddings)) for t in plan.tables]
        return torch.cat([part.reshape(-1) for part in rows])

    before = weights()
    for step in (1, 23, 24, 45, 47):
        callback.on_step_end(session, step, torch.zeros(()))
        assert torch.equal(weights(), before)
    callback.on_step_end(session, 46, torch.zeros(()))
    zeroed = int(0.5 * (1 - 0.99**23) * before.numel())
    smallest = before.abs().sort(stable=True).indices[:zeroed]
    want = before.clone()
    want[smallest] = 0
    assert torch.equal(weights(), want) and zeroed > 10


@pytest.mark.parametrize("sampled", [150, 10_000])
def test_the_threshold_comes_from_a_sample_and_rows_are_read_in_blocks(
    device: torch.device, sampled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plan = build()
    session = shard(model, OptimizerConfig(), DeviceConfig(), device)
    initialize_tables(session.model.state_dict(), plan, seed=5)
    monkeypatch.setattr("recsys.embeddings.prune.SAMPLED_WEIGHTS", sampled)
    monkeypatch.setattr("recsys.embeddings.prune.ROWS_AT_ONCE", 7)
    callback = MagnitudePruning(config=PruneConfig(during_training=True), tables=plan.tables, target=0.5)

    def weights() -> Tensor:
        return torch.cat([session.read_rows(t.name, torch.arange(t.num_embeddings)).reshape(-1) for t in plan.tables])

    before = weights()
    callback.prune(session, 0.5)
    after = weights()
    zeroed = after == 0
    assert torch.equal(after[~zeroed], before[~zeroed])
    assert before[zeroed].abs().max() < after[~zeroed].abs().min(), "one threshold for all tables"
    share = zeroed.float().mean().item()
    assert share == pytest.approx(0.5, abs=0.1 if sampled == 150 else 1e-3)
