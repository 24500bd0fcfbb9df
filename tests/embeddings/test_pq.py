"""Product quantization of trained tables: bytes by hand, exact cases, errors that fall with bytes, OPQ against PQ."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.specs import FeatureSpec
from recsys.embeddings.full import FullConfig
from recsys.embeddings.hash import HashConfig
from recsys.embeddings.mixed import Assignment, MixedConfig
from recsys.embeddings.pq import PqConfig, expected_loss, normal_loss
from recsys.ops.kmeans import nearest_centroids
from recsys.ops.product_quantization import balanced_axes, decode, learn, nearest_codes, weighted_error
from tests.embeddings.post_training import (
    assert_equals_reference,
    assert_frozen_as_planned,
    assert_scripts,
    error,
    served_rows,
    trained,
    users_and_tags,
)

FEATURES = users_and_tags(800)
ALONE = [replace(FEATURES[0], octave_counts=())]


@pytest.mark.parametrize("rotate", [False, True])
def test_trains_what_full_trains(rotate: bool) -> None:
    want = FullConfig().plan(FEATURES)
    assert PqConfig(rotate=rotate, compression_ratio=12).plan(FEATURES).fingerprint == want.fingerprint


@pytest.mark.parametrize("ratio", [1.5, 4.0, 10.0, 40.0])
@pytest.mark.parametrize("rotate", [False, True])
def test_frozen_parts_are_those_of_the_serving_plan(rotate: bool, ratio: float) -> None:
    config = PqConfig(rotate=rotate, compression_ratio=ratio)
    frozen = assert_frozen_as_planned(config, trained(config.plan(FEATURES), decay=0.3))
    assert frozen.plan.num_bytes >= 0.8 * config.budget_bytes(FEATURES) or ratio < 4
    assert_scripts(frozen)


@pytest.mark.parametrize("rotate", [False, True])
def test_served_embeddings_equal_the_dense_reference(rotate: bool) -> None:
    small = [replace(f, num_embeddings=min(f.num_embeddings or 0, 50)) for f in FEATURES]
    config = PqConfig(rotate=rotate, compression_ratio=3)
    frozen = config.freeze(trained(config.plan(small)))
    assert any(entry.remap.target.endswith("CodesRemap") for entry in frozen.plan.features)
    assert_equals_reference(frozen)


def test_bytes_by_hand() -> None:
    """20,000 ids of width 16 at ratio 32: 40,000 bytes. 8 bits an id (20,000 + 3) and 256 centroids (16,384) fit."""
    feature = [FeatureSpec(name="a", embedding_dim=16, num_embeddings=20_000)]
    config = PqConfig(compression_ratio=32)
    served = config.serving_plan(config.plan(feature))
    (entry,) = served.features
    parts, centroids = len(entry.tables), entry.remap.params["num_centroids"]
    bits = max(1, int(math.log2(centroids)))
    by_hand = math.ceil(20_000 * parts * bits / 8) + 3 + centroids * 16 * 4
    assert served.num_bytes == by_hand and 0.8 * 40_000 < by_hand <= 40_000
    rotated = PqConfig(compression_ratio=12, rotate=True)
    served = rotated.serving_plan(rotated.plan(feature))
    assert len(served.features[0].tables) > 1 and served.combiner_bytes == 4 * 16 * 16


@pytest.mark.parametrize("rotate", [False, True])
def test_error_falls_with_bytes(rotate: bool) -> None:
    errors = [error(PqConfig(compression_ratio=ratio, rotate=rotate), ALONE) for ratio in (24, 12, 6, 3, 1.0)]
    assert all(more > less for more, less in pairwise(errors))
    assert errors[-1] == 0 and errors[-2] < 0.01


def test_without_a_budget_and_for_few_distinct_rows_nothing_is_lost() -> None:
    config = PqConfig(compression_ratio=8)
    assert error(PqConfig(), FEATURES) == 0
    parts = trained(config.plan(ALONE))
    few = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    parts.tables["table_user"][:] = few[torch.arange(800) % 8]
    served = served_rows(config.freeze(parts))["user"]
    torch.testing.assert_close(served, parts.tables["table_user"], atol=1e-6, rtol=0)


def test_as_many_centroids_as_rows_is_exact() -> None:
    table = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    quantizer = learn(table, num_parts=4, num_centroids=128, weights=torch.ones(100), rotate=False, generator=generator)
    assert torch.equal(decode(nearest_codes(table, quantizer), quantizer), table)


def test_codes_by_hand() -> None:
    """Two parts of width 1, two centroids each: the first separates 0 and 4, the second -1 and 1."""
    table = torch.tensor([[0.0, -1.0], [4.0, 1.0], [0.0, 1.0], [4.0, -1.0]])
    generator = torch.Generator().manual_seed(0)
    quantizer = learn(table, num_parts=2, num_centroids=2, weights=torch.ones(4), rotate=False, generator=generator)
    assert sorted(quantizer.codebook[0].flatten().tolist()) == [0.0, 4.0]
    assert sorted(quantizer.codebook[1].flatten().tolist()) == [-1.0, 1.0]
    assert torch.equal(decode(nearest_codes(table, quantizer), quantizer), table)
    codes = nearest_codes(table, quantizer)
    assert [(a == codes[0, 0]).item() for a in codes[:, 0]] == [True, False, True, False]


def test_rotation_beats_none_where_parts_are_correlated() -> None:
    """Columns k and k + 4 nearly equal: unrotated parts code everything twice."""
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(3000, 4, generator=generator)
    table = torch.cat([half, half + 0.1 * torch.randn(3000, 4, generator=generator)], dim=1)
    errors = []
    for rotate in (False, True):
        quantizer = learn(
            table,
            num_parts=4,
            num_centroids=16,
            weights=torch.ones(3000),
            rotate=rotate,
            generator=torch.Generator().manual_seed(2),
        )
        assert torch.allclose(quantizer.rotation @ quantizer.rotation.t(), torch.eye(8), atol=1e-5)
        errors.append(weighted_error(table, quantizer, torch.ones(3000)))
    assert errors[1] < 0.5 * errors[0]


def test_axes_are_dealt_out_by_the_product_of_variances() -> None:
    """Variances 16, 8, 4, 2 in two parts: 16 and 2, 8 and 4."""
    table = torch.diag(torch.tensor([16.0, 8.0, 4.0, 2.0]).sqrt()).repeat(2, 1)
    table[4:] *= -1
    axes = balanced_axes(table, torch.ones(8), 2).abs().round()
    first = {int(column.argmax()) for column in axes[:, :2].t()}
    assert first in ({0, 3}, {1, 2})


def test_frequent_ids_are_coded_more_exactly() -> None:
    skewed = [replace(ALONE[0], octave_counts=(10_000, 5000, 2000, 1000, 500, 200, 100, 50, 20, 10, 5))]
    config = PqConfig(compression_ratio=16)
    parts = trained(config.plan(skewed))
    errors = (served_rows(config.freeze(parts))["user"] - parts.tables["table_user"]).square().mean(1)
    assert errors[:15].mean() < 0.3 * errors[500:].mean()


def test_the_floor_is_said_and_accepted() -> None:
    feature = [FeatureSpec(name="a", embedding_dim=8, num_embeddings=8000)]
    with pytest.raises(ConfigError, match=r"pq needs 1,035 bytes"):  # 1000 + 3 of codes, a row of 32
        PqConfig(compression_ratio=1000).plan(feature)
    PqConfig(budget_mib=1035 / 2**20).plan(feature)


def test_full_below_keeps_small_features_as_they_are() -> None:
    config = PqConfig(compression_ratio=5, full_below=60)
    served = config.serving_plan(config.plan(FEATURES))
    kept = {entry.feature.name for entry in served.features if entry.remap.target.endswith("Identity")}
    assert {"tags", "one"} <= kept and "user" not in kept


def test_beside_another_method() -> None:
    config = MixedConfig(
        default=HashConfig(compression_ratio=2),
        assignments=[Assignment(features=["user"], method=PqConfig(compression_ratio=6))],
    )
    parts = trained(config.plan(FEATURES))
    frozen = config.freeze(parts)
    assert frozen.plan == config.serving_plan(parts.plan)
    with pytest.raises(ConfigError, match=r"'tags' was trained with recsys.embeddings.hash.HashRemap"):
        PqConfig().serving_plan(parts.plan)


def test_hashed_features_are_refused() -> None:
    with pytest.raises(ConfigError, match="no vocabulary"):
        PqConfig(compression_ratio=2).plan([FeatureSpec(name="ip", embedding_dim=8, num_embeddings=None)])


def test_expected_loss_orders_what_is_measured() -> None:
    """Of 4000 normal rows of width 8: what the planner expects is what k-means leaves, within a quarter."""
    feature = FeatureSpec(name="a", embedding_dim=8, num_embeddings=4000)
    table = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    for num_parts, num_centroids in ((8, 4), (4, 16), (2, 16), (4, 64)):
        quantizer = learn(
            table,
            num_parts=num_parts,
            num_centroids=num_centroids,
            weights=torch.ones(4000),
            rotate=False,
            generator=torch.Generator().manual_seed(0),
        )
        lost = weighted_error(table, quantizer, torch.ones(4000)) / float(table.square().sum())
        expected = expected_loss(feature, num_parts=num_parts, num_centroids=num_centroids)
        assert expected == pytest.approx(lost, rel=0.25)
    assert expected_loss(replace(feature, num_embeddings=16), num_parts=1, num_centroids=16) == 0


@pytest.mark.parametrize(("num", "lost"), [(2, 0.3634), (4, 0.1175), (8, 0.03454), (16, 0.009497)])
def test_normal_loss_is_that_of_the_lloyd_max_quantizer(num: int, lost: float) -> None:
    assert normal_loss(num, 1) == pytest.approx(lost, rel=0.06)


def test_codes_are_the_nearest_centroids() -> None:
    config = PqConfig(compression_ratio=8)
    frozen = config.freeze(trained(config.plan(ALONE)))
    (entry,), (table,) = frozen.plan.features, frozen.tables.values()
    parts, centroids = len(entry.tables), entry.remap.params["num_centroids"]
    rows = frozen.remaps["user"](torch.arange(800))
    pieces = trained(config.plan(ALONE)).tables["table_user"].chunk(parts, dim=1)
    for part, piece in enumerate(pieces):
        want, _ = nearest_centroids(piece, table[part * centroids : (part + 1) * centroids])
        assert torch.equal(rows[part] - part * centroids, want)
